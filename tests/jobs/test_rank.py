from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import PymkError
from infra.graph import Csr, Graph
from infra.schemas import RANKINGS
from infra.settings import RankSettings, Settings
from jobs import rank
from jobs.context import Parent
from jobs.scoring import Pairs, Scorer, blocks_of
from lookup_api.ranking.top import top_per_user
from tests.suites.planted import cut_view, planted_graph
from tests.suites.small_release import SETTINGS, GraphRelease, context, small_release


@pytest.fixture(scope="module")
def graph(lonely_release: GraphRelease) -> Graph:
    return lonely_release.graph


@pytest.fixture(scope="module")
def made(lonely_release: GraphRelease) -> dict[str, Parent]:
    return lonely_release.made


@pytest.fixture(scope="module")
def rankings(made: dict[str, Parent]) -> pa.Table:
    return pq.read_table(made["rankings"].path)


def here(function, count):
    return [function(number) for number in range(count)]


def test_rankings_have_their_schema_and_order(rankings: pa.Table) -> None:
    assert rankings.schema.equals(RANKINGS)
    assert rankings.sort_by([("user_id", "ascending"), ("rank", "ascending")]).equals(rankings)


def test_every_active_user_is_ranked_from_one_on(graph: Graph, rankings: pa.Table) -> None:
    user, position = (rankings[name].to_numpy() for name in ("user_id", "rank"))
    assert np.unique(user).tolist() == graph.ids.tolist()
    starts = np.flatnonzero(np.diff(user, prepend=user[0] - 1))
    assert (position[starts] == 1).all()
    same = user[1:] == user[:-1]
    assert (np.diff(position)[same] == 1).all()


def test_nobody_is_shown_themselves_a_friend_or_somebody_excluded(graph: Graph, rankings: pa.Table) -> None:
    user = graph.rows_of(rankings["user_id"].to_numpy())
    candidate = graph.rows_of(rankings["candidate_id"].to_numpy())
    assert (user != candidate).all()
    for rows in (graph.now.connections, graph.excluded):
        known = {(u, int(v)) for u in range(graph.users) for v in rows.row(u)}
        assert not known & set(zip(user.tolist(), candidate.tolist(), strict=True))


@pytest.mark.parametrize("exposure", [0.0, 0.25, 2.0])
def test_ranks_are_those_of_sorting_every_list_less_the_price_of_exposure(
    graph: Graph, made: dict[str, Parent], tmp_path: Path, exposure: float
) -> None:
    """Beside plain Python: lists as dictionaries, counted and sorted one by one. Who has no friends neither makes
    prices nor pays them."""
    folder = made["features"].path / "now"
    scorer = Scorer.open(made["features"].path, made["ranker"].path, "now")
    lists: dict[int, dict[int, np.float32]] = {}
    for pairs in [Pairs.read(path) for path in sorted(folder.glob("part-*.parquet"))]:
        for user, candidate, score in zip(pairs.user, pairs.candidate, scorer.score(pairs), strict=True):
            lists.setdefault(int(user), {})[int(candidate)] = score
    price, settled = np.zeros(graph.users, np.float32), graph.now.connections.degrees() > 0
    assert 0 < settled.sum() < len(lists)

    def ordered(user: int) -> list[int]:
        return sorted(lists[user], key=lambda c: (-(lists[user][c] - price[c] * settled[user]), c))

    shown = Counter[int]()
    for number in range(1, 5 if exposure else 1):
        shown.update(c for user in lists if settled[user] for c in ordered(user)[:20])
        price = np.array([exposure * np.log1p(shown[c] / number / 20) for c in range(graph.users)], np.float32)
    settings = Settings(rank=RankSettings(exposure=exposure), candidates=SETTINGS.candidates)
    rank.make(context(made, tmp_path / "data", settings), here)
    found = pq.read_table(tmp_path / "data")
    owner = found["user_id"].to_numpy()
    for user, scores in lists.items():
        at = owner == graph.ids[user]
        assert graph.rows_of(found["candidate_id"].to_numpy()[at]).tolist() == ordered(user)
        np.testing.assert_array_equal(found["score"].to_numpy()[at], [scores[c] for c in ordered(user)])


def test_who_has_nothing_at_all_gets_the_most_connected_people_in_order(graph: Graph, rankings: pa.Table) -> None:
    degree = graph.now.connections.degrees()
    for row in (225, 239):
        mine = rankings.filter(pa.compute.equal(rankings["user_id"], graph.ids[row]))
        barred = set(graph.excluded.row(row).tolist())
        expected = [p for p in np.argsort(-degree, kind="stable").tolist() if p not in barred][: mine.num_rows]
        assert graph.rows_of(mine["candidate_id"].to_numpy()).tolist() == expected
        assert {reason["kind"] for reasons in mine["reasons"].to_pylist() for reason in reasons} == {"popular"}


def test_who_has_no_more_than_a_city_gets_people_of_it(tmp_path: Path) -> None:
    graph = planted_graph(400, communities=7)
    city = (np.arange(400) % 7).astype(np.int32)
    local = replace(graph, attributes=("city",), attribute_codes=city[None], cardinalities=(7,))
    nowhere = Csr.empty(400, np.float32)
    local = replace(local, past=replace(graph.past, affiliations=nowhere), now=replace(graph.now, affiliations=nowhere))
    local = replace(
        local, past=cut_view(local.past, 399), now=cut_view(local.now, 399), entity_kind=np.zeros(0, np.int16)
    )
    made = small_release(tmp_path, local)
    rankings = pq.read_table(made["rankings"].path)
    mine = rankings.filter(pa.compute.equal(rankings["user_id"], local.ids[399]))
    shown = local.rows_of(mine["candidate_id"].to_numpy())
    assert mine["reasons"].to_pylist()[0][0]["kind"] == "same_attribute"
    assert (city[shown] == city[399])[:10].all()


def test_the_more_exposure_counts_the_more_evenly_people_are_shown(
    graph: Graph, made: dict[str, Parent], tmp_path: Path
) -> None:
    pays = graph.ids[graph.now.connections.degrees() > 0]
    shown = []
    for exposure in (0.0, 0.25, 2.0):
        settings = Settings(rank=RankSettings(exposure=exposure, per_user=20), candidates=SETTINGS.candidates)
        rank.make(context(made, tmp_path / f"{exposure}" / "data", settings), here)
        table = pq.read_table(tmp_path / f"{exposure}" / "data")
        table = table.filter(pa.compute.is_in(table["user_id"], pa.array(pays)))
        shown.append(np.std(list(Counter(table["candidate_id"].to_pylist()).values())))
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[-1]


def test_a_user_without_candidates_gets_the_most_connected_people(graph: Graph, made: dict[str, Parent]) -> None:
    block = blocks_of(made["features"].path / "now", graph.users)[-1]
    none = replace(block, path=None)
    scorer = Scorer.open(made["features"].path, made["ranker"].path, "now")
    popular = rank.most_connected(graph.now.connections)
    ranked = rank.rank_block(graph, "now", scorer, popular, none, none.pairs(), 10)
    for row in (230, 239):
        barred = set(graph.excluded.row(row).tolist())
        expected = [p for p in popular.tolist() if p not in barred][:10]
        assert ranked.candidate[ranked.user == row].tolist() == expected
    assert (ranked.place == -1).all()


def test_reasons_are_the_names_and_values_of_the_lake(graph: Graph, rankings: pa.Table) -> None:
    """Shared schools against the graph's codes."""
    user = graph.rows_of(rankings["user_id"].to_numpy())
    candidate = graph.rows_of(rankings["candidate_id"].to_numpy())
    checked = 0
    for row, reasons in enumerate(rankings["reasons"].to_pylist()):
        assert 1 <= len(reasons) <= 3
        for reason in reasons:
            if reason["attribute"] == "school":
                code = graph.attribute_codes[0, user[row]]
                assert code == graph.attribute_codes[0, candidate[row]]
                assert reason == {
                    "kind": "same_attribute",
                    "attribute": "school",
                    "value": f"school-{code}",
                    "count": None,
                }
                checked += 1
    assert checked > 100


def test_the_stage_gives_the_same_hash_however_the_features_are_cut(
    made: dict[str, Parent], graph: Graph, rankings: pa.Table, tmp_path: Path
) -> None:
    whole = pa.concat_tables(pq.read_table(p) for p in sorted((made["features"].path / "now").glob("*.parquet")))
    recut = tmp_path / "features" / "now"
    recut.mkdir(parents=True)
    np.save(recut / "user_features.npy", np.load(made["features"].path / "now" / "user_features.npy"))
    rows = whole["user_row"].to_numpy()
    for number, (first, last) in enumerate([(0, 31), (31, 32), (32, 200), (200, 240)]):
        start, end = np.searchsorted(rows, [first, last])
        pq.write_table(whole.slice(start, end - start), recut / f"part-{number:05d}.parquet")
    inputs = {**made, "features": Parent("features-2", tmp_path / "features", "", {})}
    result = rank.make(context(inputs, tmp_path / "data"), here)
    assert result.content_hash == made["rankings"].content_hash
    assert pq.read_table(tmp_path / "data").equals(rankings)
    assert (result.rows, result.metrics["users_ranked"]) == (rankings.num_rows, graph.users)


def test_the_hash_follows_the_prices_that_live_lists_read(made: dict[str, Parent], tmp_path: Path) -> None:
    """Prices too small to move anybody in a stored list."""
    found = []
    for exposure in (0.0, 1e-12):
        settings = Settings(rank=RankSettings(exposure=exposure), candidates=SETTINGS.candidates)
        data = tmp_path / str(exposure)
        result = rank.make(context(made, data, settings), here)
        found.append((result.content_hash, pq.read_table(data), np.load(data / rank.PRICES)))
    assert found[0][1].equals(found[1][1])
    assert not np.array_equal(found[0][2], found[1][2])
    assert found[0][0] != found[1][0]


def test_fewer_a_user_are_the_first_of_more(made: dict[str, Parent], rankings: pa.Table, tmp_path: Path) -> None:
    settings = Settings(rank=RankSettings(per_user=7), candidates=SETTINGS.candidates)
    rank.make(context(made, tmp_path / "data", settings), here)
    few = pq.read_table(tmp_path / "data")
    assert few.equals(rankings.filter(pa.compute.less_equal(rankings["rank"], 7)))


def test_a_score_that_is_not_finite_is_refused() -> None:
    one = np.zeros(1, np.int32)
    with pytest.raises(PymkError, match="not finite"):
        top_per_user(one, one, np.array([np.nan], np.float32), 5)


@pytest.mark.parametrize("blend", ["ssd", "dpp", "mmr", "spacing"])
def test_a_blend_shows_the_same_people_in_another_order(
    made: dict[str, Parent], rankings: pa.Table, tmp_path: Path, blend: str
) -> None:
    settings = Settings(rank=RankSettings(blend=blend, diversity=0.3), candidates=SETTINGS.candidates)  # type: ignore[arg-type]
    result = rank.make(context(made, tmp_path / "data", settings), here)
    found = pq.read_table(tmp_path / "data")
    assert result.content_hash != made["rankings"].content_hash
    by_pair = [("user_id", "ascending"), ("candidate_id", "ascending")]
    same = found.sort_by(by_pair), rankings.sort_by(by_pair)
    for name in ("user_id", "candidate_id", "score", "reasons"):
        assert same[0][name].equals(same[1][name]), name
    assert found.sort_by([("user_id", "ascending"), ("rank", "ascending")]).equals(found)
