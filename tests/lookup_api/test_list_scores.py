"""A model of lists is told by the root what the ranker scores, what exposure takes, embeddings and groups, and gives
each person a place; in this process and on leaves alike."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gnn.blend.list_export import scores_of
from infra.graph import Graph
from infra.model_routes import LOOKUP, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.serving_meta import PRICE
from infra.store import ObjectStore, open_store
from lookup_api.circle import circle_of
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, NoFacts, Query
from lookup_api.ranking.model_check import check_model
from lookup_api.root.gathered import Defaulted, gather
from lookup_api.root.listed import Listed, groups_of
from lookup_api.root.people import People, Viewer
from lookup_api.score_request import ScoreQuery
from lookup_api.scores import Scoring
from lookup_api.served_release import ServedRelease
from tests.infra.test_models import NOW
from tests.lookup_api.test_score_fleet import answered
from tests.lookup_api.test_score_fleet import scoring_on as scoring_on_leaves
from tests.lookup_api.test_scores import STRANGER, asked, push, scoring_on, stored_of
from tests.suites.leaf_processes import leaves
from tests.suites.list_models import list_spec, small_blend, write_list_model
from tests.suites.live_store import guarded_graph, live_artifacts, publish_live
from tests.suites.served_store import current_release


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def store(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("lists")
    store = open_store(str(folder / "store"), create=True)
    release = publish_live(store, live_artifacts(folder / "made", graph))
    opened = ServedRelease.open(store, release)
    dimensions = opened.head.embedding_dimensions
    opened.give_back()
    for version, width in (("1", dimensions), ("narrow", dimensions - 1)):
        made = write_list_model(folder / version, width, version=version)
        Registry(store).push(made, check_model, NOW, "a")
    push(store, folder / "dots", "1", -1.0)
    push(store, folder / "nan", "nan", np.nan)
    return store


@pytest.fixture(scope="module")
def release(store: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(store) as opened:
        yield opened


@pytest.fixture
def scoring(store: ObjectStore) -> Iterator[Scoring]:
    made = scoring_on(store)
    yield made
    made.root.close()


def rank_by(store: ObjectStore, version: str | None) -> None:
    """Routes the lookup to a version of `dots`; None to the release."""
    model = ModelRef(name="dots", version=version) if version else None
    RouteStore(store).change(LOOKUP, routed(Route(stable=model), force=True), "2026-01-01T00:00:00Z", "a")


@pytest.mark.parametrize("ranker", [None, "1"])
def test_it_is_told_what_the_release_stores_and_the_users_own_ranker_scores(
    store: ObjectStore, release: ServedRelease, graph: Graph, ranker: str | None
) -> None:
    rank_by(store, ranker)
    scoring, spec = scoring_on(store), list_spec(release.head.embedding_dimensions)
    for row in (4, 9, 30):
        user_id = int(graph.ids[row])
        people = list(stored_of(release, user_id).ids)[:25]
        told = asked(scoring, release, user_id, people, (LOOKUP, "blend@1"))
        users = release.users(people)
        prices = users.features[:, release.head.user_features.index(PRICE)]
        columns = {
            "score": np.array(told["scores"][LOOKUP], np.float32),
            "price": prices,
            "embedding": users.embeddings(np.arange(len(people))),
            "attributes": groups_of(users, 3),
        }
        assert prices.any()
        assert columns["embedding"].any()
        assert (columns["attributes"] >= 0).any()
        assert set(columns) == set(spec.columns)
        wanted = scores_of(small_blend(), columns)
        np.testing.assert_array_equal(np.array(told["scores"]["blend@1"], np.float32), wanted)
        assert told["defaulted"]["blend@1"] == {"missing": 0, "stale": 0, "values": 4 * len(people)}
    scoring.root.close()
    rank_by(store, None)


def test_two_people_have_a_number_in_common_who_share_a_group(release: ServedRelease, graph: Graph) -> None:
    users = release.users(graph.ids[:60].tolist())
    found, kinds = groups_of(users, 12), users.codes.shape[1]
    assert groups_of(users, 1).shape == (60, 1)
    np.testing.assert_array_equal(groups_of(users, 2), found[:, :2])
    shared = 0
    for one in range(60):
        for other in range(one):
            codes = any(users.codes[one, at] == users.codes[other, at] >= 0 for at in range(kinds))
            wanted = codes or bool(set(users.groups(one)) & set(users.groups(other)))
            has = bool(({*found[one].tolist()} & {*found[other].tolist()}) - {-1})
            assert has == wanted, (one, other)
            shared += wanted
    assert shared


def test_who_is_barred_is_not_of_the_list(scoring: Scoring, release: ServedRelease, graph: Graph) -> None:
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:12]
    alone = asked(scoring, release, user_id, people, ("blend@1",))["scores"]["blend@1"]
    told = asked(scoring, release, user_id, [user_id, *people, STRANGER], ("blend@1",))
    assert told["scores"]["blend@1"] == [None, *alone, None]
    assert told["barred"] == [str(user_id), str(STRANGER)]


def test_defaults_stand_for_what_is_not_known(scoring: Scoring, release: ServedRelease, graph: Graph) -> None:
    """Of somebody whom the release does not know: everything but what the ranker scored."""
    user_id, spec = int(graph.ids[4]), list_spec(release.head.embedding_dimensions)
    ask = Ask(Query(user_id, 0, frozenset(), False), release, NoFacts(), Deadline.after(60))
    viewer = Viewer.of(ask, circle_of(ask))
    people = People.named([stored_of(release, user_id).ids[0], STRANGER], viewer)
    gathered = gather(ask, viewer, viewer.vector(release), people, np.inf, scoring.counts)
    columns, defaulted = Listed(gathered, np.array([1, 2], np.float32), None).columns_of(spec)
    assert defaulted == Defaulted(3, 0, 8)
    assert columns["score"].tolist() == [1, 2]
    assert columns["embedding"].any(axis=1).tolist() == [True, False]
    assert columns["attributes"][1].tolist() == [-1, -1, -1]
    _, without = Listed(gathered, None, None).columns_of(spec)
    assert without == Defaulted(5, 0, 8)


def test_it_fails_with_its_ranker_and_for_embeddings_of_another_width(
    store: ObjectStore, release: ServedRelease, graph: Graph
) -> None:
    rank_by(store, "nan")
    scoring, user_id = scoring_on(store), int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:30]
    told = asked(scoring, release, user_id, people, ("blend@1", "release"))
    assert told["failed"] == {"blend@1": "failed"}
    assert list(told["scores"]) == ["release"]
    scoring.root.close()
    rank_by(store, None)
    scoring = scoring_on(store)
    told = asked(scoring, release, user_id, people, ("blend@narrow", "blend@1"))
    assert told["failed"] == {"blend@narrow": "failed"}
    assert list(told["scores"]) == ["blend@1"]
    scoring.root.close()


def test_a_value_that_is_too_old_takes_its_default(
    store: ObjectStore, release: ServedRelease, graph: Graph, tmp_path: Path
) -> None:
    """The release is years old; a score is of now."""
    spec = list_spec(release.head.embedding_dimensions, "aged")
    aged = tuple(InputSpec(**one.model_dump() | {"max_age_s": 60.0}) for one in spec.inputs)
    folder = write_list_model(tmp_path / "aged", release.head.embedding_dimensions, version="aged")
    (folder / "model.toml").write_text(spec.model_copy(update={"inputs": aged}).to_toml())
    Registry(store).push(folder, check_model, NOW, "a")
    scoring, user_id = scoring_on(store), int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:9]
    told = asked(scoring, release, user_id, people, ("blend@aged",))
    assert told["defaulted"]["blend@aged"] == {"missing": 0, "stale": 3 * 9, "values": 4 * 9}
    scoring.root.close()


def test_leaves_give_the_answers_that_this_process_gives(
    store: ObjectStore, release: ServedRelease, graph: Graph
) -> None:
    rank_by(store, "1")
    with leaves(store, 1) as (one,), scoring_on_leaves(store) as here, scoring_on_leaves(store, one.address) as there:
        for number in range(30):
            draw = np.random.default_rng(number)
            people = draw.choice(graph.ids, draw.integers(1, 40), replace=False).tolist()
            query = ScoreQuery(int(draw.choice(graph.ids)), tuple(people), ("blend@1", LOOKUP, "release"))
            assert answered(there, query, release) == answered(here, query, release), number
    rank_by(store, None)
