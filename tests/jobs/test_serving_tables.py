from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.blobs import decode_bars, decode_candidates, decode_neighbours, decode_ranking, decode_user
from infra.errors import CorruptArtifact
from infra.graph import Graph
from infra.kv import BARS, CANDIDATES, META, NEIGHBOURS, RANKINGS, USERS
from infra.lmdb_tables import LmdbTables
from infra.serving_meta import GROUP_RULES_KEY, HEAD_KEY, POPULAR_KEY, PRICE, ServingHead
from infra.settings import RulesSettings, ServingSettings, Settings
from jobs import serving_tables
from jobs.context import Parent, StageResult
from jobs.rank import PRICES
from jobs.scoring import Pairs, Scorer
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.popular import most_connected
from lookup_api.ranking.scoring import RankingModel
from tests.suites.planted import bare_graph
from tests.suites.small_release import SETTINGS, GraphRelease, context, small_release

SERVING = Settings(
    candidates=SETTINGS.candidates,
    serving=ServingSettings(candidates=40, neighbours=9, popular=30, partitions=3),
    rules=RulesSettings(company_attributes=("club",)),
)


@pytest.fixture(scope="module")
def graph(lonely_release: GraphRelease) -> Graph:
    return lonely_release.graph


@pytest.fixture(scope="module")
def made(lonely_release: GraphRelease) -> dict[str, Parent]:
    return lonely_release.made


@pytest.fixture(scope="module")
def served(made: dict[str, Parent], tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("serving") / "data"
    result = serving_tables.run(context(made, folder, SERVING))
    tables = LmdbTables(folder)
    yield tables, result
    tables.close()


def test_a_ranking_blob_says_what_the_rankings_say(graph: Graph, made: dict[str, Parent], served) -> None:
    tables, _ = served
    rows = pq.read_table(made["rankings"].path)
    user = rows["user_id"].to_numpy()
    for user_id in graph.ids[::13].tolist() + graph.ids[-3:].tolist():
        mine = rows.filter(user == user_id)
        found = decode_ranking(tables.get(RANKINGS, user_id))
        records = list(found.items())
        assert found.ids() == mine["candidate_id"].to_pylist()
        assert [record[1] for record in records] == mine["score"].to_pylist()
        told = [[{k: v for k, v in one.items() if v is not None} for one in row] for row in mine["reasons"].to_pylist()]
        assert [found.reasons(record) for record in records] == told


@pytest.mark.parametrize("low", [False, True])
def test_ids_of_the_whole_range_come_back_from_the_tables(graph: Graph, tmp_path: Path, low: bool) -> None:
    """Ids of one list are further apart than an int64 holds."""
    ids = np.arange(graph.users) * 1000
    ids[0], ids[-30:] = -(2**63), 2**63 - 1 - np.arange(30)[::-1]
    if low:
        ids[1] = -6 * 10**18
    spread_out = replace(graph, ids=ids)
    made = small_release(tmp_path / "release", spread_out)
    serving_tables.run(context(made, tmp_path / "data", SERVING))
    tables = LmdbTables(tmp_path / "data")
    ranked = pq.read_table(made["rankings"].path)
    whose = ranked["user_id"].to_numpy()
    for row, user_id in enumerate(spread_out.ids.tolist()):
        ranking = decode_ranking(tables.get(RANKINGS, user_id))
        assert ranking.ids() == ranked.filter(whose == user_id)["candidate_id"].to_pylist()
        assert [ranking.id_at(place) for place in range(len(ranking))] == ranking.ids()
        friends = spread_out.ids[spread_out.now.connections.row(row)]
        assert set(decode_neighbours(tables.get(NEIGHBOURS, user_id)).ids) <= set(friends.tolist())
        assert set(decode_candidates(tables.get(CANDIDATES, user_id)).ids) <= set(spread_out.ids.tolist())
        assert decode_user(tables.get(USERS, user_id)).features.size
    popular = decode_ranking(tables.get(META, POPULAR_KEY)).ids()
    assert popular == spread_out.ids[most_connected(spread_out.now.connections)[:30]].tolist()
    tables.close()


def test_stored_candidates_are_the_best_by_the_ranker_with_their_features(
    graph: Graph, made: dict[str, Parent], served
) -> None:
    """Beside a sort of one user's pairs at a time."""
    tables, _ = served
    scorer = Scorer.open(made["features"].path, made["ranker"].path, "now")
    for path in sorted((made["features"].path / "now").glob("part-*.parquet")):
        pairs = Pairs.read(path)
        score = scorer.score(pairs)
        for row in np.unique(pairs.user)[::19]:
            mine = np.flatnonzero(pairs.user == row)
            best = sorted(mine, key=lambda i: (-score[i], pairs.candidate[i]))[:40]
            found = decode_candidates(tables.get(CANDIDATES, int(graph.ids[row])))
            assert found.ids == graph.ids[pairs.candidate[best]].tolist()
            assert list(found.sources) == pairs.sources[best].tolist()
            np.testing.assert_array_equal(found.features, pairs.features[best])


def test_a_score_computed_live_from_the_tables_equals_the_nightly_one(
    graph: Graph, made: dict[str, Parent], served
) -> None:
    """Only blobs, the ranker and two batched reads: the live path. Everybody, to 1e-5."""
    tables, _ = served
    model = RankingModel.open(made["ranker"].path)
    head = ServingHead.from_json(tables.get(META, HEAD_KEY))
    assert head.pair_features == PAIR_FEATURES
    compared = 0
    for user_id in graph.ids.tolist():
        stored = decode_candidates(tables.get(CANDIDATES, user_id))
        if not stored.ids:
            continue
        width = len(USER_FEATURES)
        viewer = decode_user(tables.get(USERS, user_id)).features[:width]
        people = np.stack([decode_user(blob).features[:width] for blob in tables.get_many(USERS, stored.ids) if blob])
        live = dict(zip(stored.ids, model.score(assemble(stored.features, viewer, people)).tolist(), strict=True))
        ranking = decode_ranking(tables.get(RANKINGS, user_id))
        for offset, score, _, _ in ranking.items():
            if ranking.base + offset in live:
                assert live[ranking.base + offset] == pytest.approx(score, abs=1e-5)
                compared += 1
    assert compared > 3000


def test_users_are_stored_with_features_codes_groups_and_embedding(
    graph: Graph, made: dict[str, Parent], served
) -> None:
    tables, _ = served
    features = np.load(made["features"].path / "now" / "user_features.npy")
    vectors, price = np.load(made["embeddings"].path / "now.npy"), np.load(made["rankings"].path / PRICES)
    assert price.max() > 0
    for row in range(0, graph.users, 23):
        user = decode_user(tables.get(USERS, int(graph.ids[row])))
        np.testing.assert_array_equal(user.features, [*features[row], price[row]])
        assert list(user.attribute_codes) == graph.attribute_codes[:, row].tolist()
        np.testing.assert_array_equal(user.embedding, vectors[row].astype(np.float16))
        school = graph.attribute_codes[0, row]
        clubs = graph.now.affiliations.row(row).tolist()
        assert list(user.groups) == clubs + ([len(graph.entity_kind) + school] if school >= 0 else [])


def test_neighbours_are_the_friends_with_the_fewest_friends_and_the_popular_to_leave_out(graph: Graph, served) -> None:
    tables, _ = served
    friends = graph.now.connections
    popular = most_connected(friends)[:30]
    for row in [*range(0, graph.users, 23), 239]:
        found = decode_neighbours(tables.get(NEIGHBOURS, int(graph.ids[row])))
        own = friends.row(row)
        fewest = sorted(own.tolist(), key=lambda v: (len(friends.row(v)), v))[:9]
        assert found.friends == len(own)
        assert found.ids == sorted(graph.ids[fewest].tolist())
        barred = {row, *own.tolist(), *graph.excluded.row(row).tolist()}
        assert list(found.barred) == [place for place, p in enumerate(popular.tolist()) if p in barred]


def test_friends_and_bars_together_are_all_whom_a_user_must_not_be_shown(graph: Graph, served) -> None:
    tables, _ = served
    for row, user_id in enumerate(graph.ids.tolist()):
        stored = decode_neighbours(tables.get(NEIGHBOURS, user_id)).ids
        others = decode_bars(tables.get(BARS, user_id))
        unseen = graph.ids[np.union1d(graph.now.connections.row(row), graph.excluded.row(row))]
        assert sorted({*stored, *others}) == unseen.tolist()
        assert not set(stored) & set(others) - set(graph.ids[graph.excluded.row(row)].tolist())


def test_every_group_of_a_stored_user_has_the_cap_it_falls_under(graph: Graph, served) -> None:
    tables, _ = served
    rules = tables.get(META, GROUP_RULES_KEY)
    company, school = (SERVING.rules.company_attributes[0], "school")
    assert (company, school) == ("club", "school")
    for user_id in graph.ids[::17].tolist():
        for group in decode_user(tables.get(USERS, user_id)).groups:
            assert rules[group] == (0 if group < len(graph.entity_kind) else 1)


def test_the_popular_list_is_the_most_connected_with_how_many_friends(graph: Graph, served) -> None:
    tables, _ = served
    popular = most_connected(graph.now.connections)[:30]
    found = decode_ranking(tables.get(META, POPULAR_KEY))
    assert found.ids() == graph.ids[popular].tolist()
    first = next(found.items())
    assert found.reasons(first) == [{"kind": "popular", "count": len(graph.now.connections.row(popular[0]))}]


def test_the_head_names_what_blobs_hold(graph: Graph, served) -> None:
    tables, result = served
    head = ServingHead.from_json(tables.get(META, HEAD_KEY))
    assert (head.users, head.attributes) == (graph.users, graph.attributes)
    assert head.user_features == (*USER_FEATURES, PRICE)
    assert (head.caps, head.embedding_dimensions) == (("company", "school"), 8)
    assert result.rows == graph.users
    assert 0 < result.metrics["bytes_per_user"]["all"] < 8192


def test_the_hash_is_independent_of_partitions_and_threads(made: dict[str, Parent], served, tmp_path: Path) -> None:
    _, result = served
    serving = SERVING.serving.model_copy(update={"partitions": 1})
    run = SERVING.run.model_copy(update={"threads": 1})
    again = SERVING.model_copy(update={"serving": serving, "run": run})
    found: StageResult = serving_tables.run(context(made, tmp_path / "data", again))
    assert found.content_hash == result.content_hash


def test_rankings_of_other_users_are_refused(made: dict[str, Parent], tmp_path: Path) -> None:
    swapped = tmp_path / "rankings"
    swapped.mkdir()
    (swapped / PRICES).write_bytes((made["rankings"].path / PRICES).read_bytes())
    parts = sorted(made["rankings"].path.glob("part-*.parquet"))
    for name, source in zip(parts, reversed(parts), strict=True):
        (swapped / name.name).write_bytes(source.read_bytes())
    inputs = {**made, "rankings": Parent("rankings-2", swapped, "", {})}
    with pytest.raises(CorruptArtifact, match="of other users"):
        serving_tables.run(context(inputs, tmp_path / "data", SERVING))


@pytest.mark.parametrize("users", [1, 3])
def test_a_graph_without_friendships_is_served(users: int, tmp_path: Path) -> None:
    graph = bare_graph(users)
    made = small_release(tmp_path / "release", graph)
    result = serving_tables.run(context(made, tmp_path / "data", SERVING))
    tables = LmdbTables(tmp_path / "data")
    assert result.rows == users
    for user_id in graph.ids.tolist():
        assert sorted(decode_ranking(tables.get(RANKINGS, user_id)).ids()) == [i for i in graph.ids if i != user_id]
        assert decode_neighbours(tables.get(NEIGHBOURS, user_id)).friends == 0
    tables.close()
