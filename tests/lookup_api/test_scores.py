"""Given people are scored by the models that a caller names, as a list would be, and those barred have no score."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from infra.blobs import decode_bars, decode_candidates
from infra.graph import Graph
from infra.kv import BARS, CANDIDATES, USERS, KeyValueReader
from infra.model_golden import Golden
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from jobs.inactive_bars import BarRows
from lookup_api.circle import circle_of
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, NoFacts, Query
from lookup_api.load import FULL, NO_LIVE
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.problems import Problem
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.model_check import check_model
from lookup_api.root.gathered import gather
from lookup_api.root.people import People, Viewer
from lookup_api.score_request import ScoreQuery, parse_score_query
from lookup_api.scores import Scoring, without_barred
from lookup_api.served_release import ServedRelease
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.suites.canaries import until_watched
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.model_folders import columns_of, small_spec, write_folder
from tests.suites.served_store import current_release

STRANGER = 10**12
INACTIVE = STRANGER + 2
"""Left out by the night, which keeps whom they must not be shown."""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def store(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("scores")
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "made", graph, inactive={INACTIVE: [int(graph.ids[4])]}))
    for version, factor in (("1", 1.0), ("2", -1.0), ("nan", np.nan)):
        push(store, folder / version, version, factor)
    return store


@pytest.fixture(scope="module")
def release(store: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(store) as opened:
        yield opened


@pytest.fixture(scope="module")
def scoring(store: ObjectStore) -> Iterator[Scoring]:
    made = scoring_on(store)
    yield made
    made.root.close()


def push(store: ObjectStore, folder: Path, version: str, factor: float, **changes: Any) -> ModelRef:
    """A model that multiplies the pair's dot product of friendship factors, which is known of stored pairs alone; with
    a factor of NaN it knows its golden batch and nothing else."""
    from onnx import TensorProto, helper

    spec = small_spec(name="dots", version=version, kind="onnx", inputs=(InputSpec(name="factors", default=7.0),))
    spec = spec.model_copy(update=changes)
    columns = columns_of(spec)
    nodes = [helper.make_node("Mul", ["factors", "by"], ["score"])]
    scores = columns["factors"] * np.float32(factor)
    if np.isnan(factor):
        nodes = [helper.make_node("Log", ["factors"], ["score"])]
        columns = {"factors": np.abs(columns["factors"]) + 1}
        scores = np.log(columns["factors"])
    weights = onnx_weights([("factors", TensorProto.FLOAT, ["n"])], nodes, by=np.float32(factor))
    Registry(store).push(write_folder(folder, spec, weights, Golden(columns, scores)), check_model, NOW, "a")
    return ModelRef(name="dots", version=version)


def scoring_on(store: ObjectStore) -> Scoring:
    settings = Settings.model_validate(LIVE_SETTINGS.model_dump())
    metrics = Metrics()
    lookup = Lookup.of(settings, metrics, store.uri)
    assert lookup.root is not None
    return Scoring(lookup.root, lookup.counts, settings.ladder, 5)


def asked(
    scoring: Scoring,
    release: ServedRelease,
    user_id: int,
    candidates: list[int],
    models: tuple[str, ...] = ("release",),
    facts: NoFacts | None = NoFacts(),  # noqa: B008
    level: int = FULL,
) -> dict[str, Any]:
    query = ScoreQuery(user_id, tuple(candidates), models)
    told = scoring.answer(query, release, facts, Deadline.after(60), level)
    return dict(orjson.loads(orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)))


def stored_of(release: ServedRelease, user_id: int) -> Any:
    return decode_candidates(release.tables.get(CANDIDATES, user_id) or b"")


def strangers_of(graph: Graph, release: ServedRelease, row: int, most: int = 20) -> list[int]:
    """People whom the night did not store for the user and does not keep out either."""
    user_id = int(graph.ids[row])
    out = np.union1d(graph.now.connections.row(row), graph.excluded.row(row))
    left = np.setdiff1d(graph.ids, [user_id, *graph.ids[out], *stored_of(release, user_id).ids])
    return [int(one) for one in left[:most]]


def test_the_releases_ranker_scores_as_it_does_at_night(graph: Graph, scoring: Scoring, release: ServedRelease) -> None:
    """Bit for bit what the ranker says of the stored features, whoever else is asked about."""
    user_id = int(graph.ids[4])
    stored = stored_of(release, user_id)
    told = asked(scoring, release, user_id, list(stored.ids), ("release", LOOKUP))
    assert told["models"] == {"release": "release", LOOKUP: "release"}
    assert told["scores"]["release"] == told["scores"][LOOKUP]
    few = asked(scoring, release, user_id, list(stored.ids)[:20])["scores"]["release"]
    assert few == told["scores"]["release"][:20]
    from lookup_api.ranking.features import USER_FEATURES, assemble

    users = release.users([user_id, *stored.ids]).features[:, : len(USER_FEATURES)]
    assert release.live is not None
    assert release.live.model is not None
    wanted = release.live.model.score(assemble(stored.features, users[0], users[1:]))
    np.testing.assert_array_equal(np.array(told["scores"]["release"], np.float32), wanted)
    assert not told["degraded"]
    assert not told["barred"]


def test_a_pair_that_is_not_stored_takes_the_models_default_and_is_counted(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    user_id = int(graph.ids[4])
    stored, others = list(stored_of(release, user_id).ids)[:10], strangers_of(graph, release, 4)
    told = asked(scoring, release, user_id, stored + others, ("dots@1",))
    places = [stored_of(release, user_id).ids.index(one) for one in stored]
    dots = stored_of(release, user_id).features[places, FEATURES.index("factors")].astype(np.float32)
    np.testing.assert_array_equal(np.array(told["scores"]["dots@1"], np.float32), [*dots, *[7.0] * len(others)])
    values = len(stored) + len(others)
    assert told["defaulted"] == {"dots@1": {"missing": len(others), "stale": 0, "values": values}}
    assert scoring.root._counts.defaulted.labels("dots@1", "missing")._value.get() >= len(others)


def test_a_value_older_than_a_model_allows_takes_its_default(
    graph: Graph, scoring: Scoring, store: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    """The release is years old."""
    inputs = (InputSpec(name="factors", default=3.0, max_age_s=86_400),)
    push(store, tmp_path / "aged", "aged", 2.0, inputs=inputs)
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:5]
    told = asked(scoring, release, user_id, people, ("dots@aged",))
    assert told["scores"]["dots@aged"] == [6.0] * 5
    assert told["defaulted"]["dots@aged"] == {"missing": 0, "stale": 5, "values": 5}


def test_several_models_are_told_the_same_features_read_once(
    graph: Graph, scoring: Scoring, release: ServedRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    get_many = release.tables.get_many

    def counted(table: str, keys: Any) -> Any:
        reads.append(table)
        return get_many(table, keys)

    monkeypatch.setattr(release.tables, "get_many", counted)
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:9]
    asked(scoring, release, user_id, people, ("release",))
    once = list(reads)
    reads.clear()
    told = asked(scoring, release, user_id, people, ("release", "dots@1", "dots@2", "dots"))
    assert reads == once
    one, two = (np.array(told["scores"][name]) for name in ("dots@1", "dots@2"))
    np.testing.assert_array_equal(one, -two)


def test_a_name_is_a_surface_a_model_or_a_version(graph: Graph, store: ObjectStore, release: ServedRelease) -> None:
    """And a surface has each user's own variant."""
    canary = Canary(model=ModelRef(name="dots", version="2"), share=0.5)
    edit = routed(Route(stable=ModelRef(name="dots", version="1"), canary=canary))
    wanted = RouteStore(store).change("home", edit, "2026-01-01T00:00:00Z", "a").route
    scoring = scoring_on(store)
    until_watched(scoring.root.catalog)
    found = set()
    for user_id in graph.ids[:12].tolist():
        people = list(stored_of(release, user_id).ids)[:2]
        model = asked(scoring, release, user_id, people, ("home",))["models"]["home"]
        assert model == str(wanted.of(wanted.variant("home", user_id)))
        found.add(model)
    assert found == {"dots@1", "dots@2"}
    scoring.root.close()


def test_a_model_that_fails_is_named_and_the_others_answer(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:30]
    told = asked(scoring, release, user_id, people, ("dots@nan", "release", "none", "dots@9", "a b@1"))
    assert told["failed"] == {"dots@nan": "failed", "none": "unknown", "dots@9": "unknown", "a b@1": "unknown"}
    assert list(told["scores"]) == ["release"]
    assert told["degraded"]


@pytest.mark.parametrize(
    ("models", "status"), [(("dots@nan",), 503), (("dots@nan", "none"), 503), (("none", "x"), 404)]
)
def test_where_no_model_answers_neither_does_the_api(
    graph: Graph, scoring: Scoring, release: ServedRelease, models: tuple[str, ...], status: int
) -> None:
    user_id = int(graph.ids[4])
    with pytest.raises(Problem) as problem:
        asked(scoring, release, user_id, list(stored_of(release, user_id).ids)[:30], models)
    assert problem.value.status == status
    assert ("Retry-After" in problem.value.headers) == (status == 503)


def test_whoever_must_not_be_shown_has_no_score(graph: Graph, scoring: Scoring, release: ServedRelease) -> None:
    """The user, friends and people kept apart by the night, and whom live facts bar or hide."""
    for row in range(0, 60, 7):
        user_id = int(graph.ids[row])
        out = graph.ids[np.union1d(graph.now.connections.row(row), graph.excluded.row(row))].tolist()
        stored = list(stored_of(release, user_id).ids)
        facts = NoFacts(barred={stored[0]: "blocked"}, hidden={stored[1]: "banned"})
        told = asked(scoring, release, user_id, [*out, *stored, user_id], facts=facts)
        barred = {str(one) for one in (*out, *stored[:2], user_id)}
        assert set(told["barred"]) == barred
        scores = dict(zip([*out, *stored, user_id], told["scores"]["release"], strict=True))
        assert {str(one) for one, score in scores.items() if score is None} == barred


@pytest.mark.parametrize(("facts", "degraded"), [(None, True), (NoFacts(viewer_hidden=True), False)])
def test_without_facts_and_for_who_is_hidden_nobody_has_a_score(
    graph: Graph, scoring: Scoring, release: ServedRelease, facts: NoFacts | None, degraded: bool
) -> None:
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:3]
    told = asked(scoring, release, user_id, people, ("release", "dots@1"), facts)
    assert told["scores"] == {"release": [None] * 3, "dots@1": [None] * 3}
    assert told["barred"] == [str(one) for one in people]
    assert told["degraded"] is degraded


def test_somebody_the_release_does_not_know_is_scored_by_what_is_known(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    people = graph.ids[:5].tolist()
    told = asked(scoring, release, STRANGER, people, ("dots@1", "release"))
    assert told["scores"]["dots@1"] == [7.0] * 5
    assert all(isinstance(one, float) for one in told["scores"]["release"])


def test_candidates_whom_the_release_does_not_know_have_no_score(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    """They may be banned or gone by the lake, of which the release has no row, or none but whom they must not see."""
    assert release.tables.get(BARS, INACTIVE) is not None
    user_id = int(graph.ids[4])
    known = stored_of(release, user_id).ids[0]
    for viewer in (user_id, STRANGER):
        told = asked(scoring, release, viewer, [INACTIVE, known, INACTIVE - 1], ("release", "dots@1"))
        for scores in told["scores"].values():
            assert [one is None for one in scores] == [True, False, True]
        assert told["barred"] == [str(INACTIVE), str(INACTIVE - 1)]
    nobody = asked(scoring, release, user_id, [STRANGER], ("dots@1",))
    assert (nobody["scores"], nobody["barred"]) == ({"dots@1": [None]}, [str(STRANGER)])


def test_a_busy_worker_scores_nobody(graph: Graph, scoring: Scoring, release: ServedRelease) -> None:
    with pytest.raises(Problem) as problem:
        asked(scoring, release, int(graph.ids[4]), [1], level=NO_LIVE)
    assert problem.value.status == 503


def test_scores_that_are_fetched_later_obey_what_happened_meanwhile(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:3]
    told, query = asked(scoring, release, user_id, people), ScoreQuery(user_id, tuple(people), ("release",))
    assert without_barred(told, query, release, NoFacts()) == told
    later = without_barred(told, query, release, NoFacts(barred={people[1]: "blocked"}))
    assert [one is None for one in later["scores"]["release"]] == [False, True, False]
    assert later["barred"] == [str(people[1])]
    for known in ((release, None), (None, NoFacts())):
        none = without_barred(told, query, *known)
        assert none["scores"]["release"] == [None] * 3
        assert none["degraded"]


def test_scores_that_are_fetched_later_obey_the_release_that_is_served_by_then(
    graph: Graph, scoring: Scoring, release: ServedRelease
) -> None:
    """It keeps one of the people from the viewer, one has left since, and of one it has no row."""
    user_id = int(graph.ids[4])
    people = list(stored_of(release, user_id).ids)[:4]
    told, query = asked(scoring, release, user_id, people), ScoreQuery(user_id, tuple(people), ("release",))
    barred = [*decode_bars(release.tables.get(BARS, user_id) or b""), people[0]]
    bars = BarRows.of(np.full(len(barred), user_id), np.sort(barred)).blobs.one(0)
    by_then = copy(release)
    by_then.departed = {people[1]: "departed"}
    by_then.tables = Changed(release.tables, {(BARS, user_id): bars, (USERS, people[2]): None})
    later = without_barred(told, query, by_then, NoFacts())
    assert [one is None for one in later["scores"]["release"]] == [True, True, True, False]
    assert later["barred"] == [str(one) for one in people[:3]]


class Changed:
    """Tables of which some rows are others."""

    def __init__(self, tables: KeyValueReader, rows: dict[tuple[str, int], bytes | None]) -> None:
        self._tables, self._rows = tables, rows

    def get(self, table: str, key: int) -> bytes | None:
        return self._rows.get((table, key), self._tables.get(table, key))

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        return [self.get(table, key) for key in keys]

    def count(self, table: str) -> int:
        return self._tables.count(table)

    def close(self) -> None:
        pass


def test_features_of_who_is_missing_are_missing(graph: Graph, release: ServedRelease, scoring: Scoring) -> None:
    """Of a stored pair nothing is, of a stranger everything but what the viewer is."""
    user_id = int(graph.ids[4])
    ask = Ask(Query(user_id, 0, frozenset(), False), release, NoFacts(), Deadline.after(60))
    viewer = Viewer.of(ask, circle_of(ask))
    people = People.named([stored_of(release, user_id).ids[0], STRANGER], viewer)
    gathered = gather(ask, viewer, viewer.vector(release), people, np.inf, scoring.counts)
    for name in FEATURES:
        missing = gathered.missing(name)
        assert (False, not name.startswith("viewer_")) == ((False, False) if missing is None else tuple(missing)), name


BAD: list[Callable[[dict[str, Any]], Any]] = [
    lambda body: [],
    lambda body: body | {"more": 1},
    lambda body: body | {"user_id": 1},
    lambda body: body | {"user_id": "01"},
    lambda body: body | {"candidate_ids": []},
    lambda body: body | {"candidate_ids": ["2", "2"]},
    lambda body: body | {"candidate_ids": ["2", 3]},
    lambda body: body | {"candidate_ids": ["9223372036854775808"]},
    lambda body: body | {"candidate_ids": ["1", "2", "3", "4"]},
    lambda body: body | {"models": []},
    lambda body: body | {"models": [""]},
    lambda body: body | {"models": [f"m{n}" for n in range(17)]},
    lambda body: {"user_id": "1"},
    lambda body: body | {"variant": "shadow"},
    lambda body: body | {"variant": None},
]


@pytest.mark.parametrize("change", BAD)
def test_a_body_that_is_no_request_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    body = {"user_id": "1", "candidate_ids": ["2", "3"], "models": ["release"]}
    assert parse_score_query(orjson.dumps(body), 3).candidate_ids == (2, 3)
    assert parse_score_query(orjson.dumps(body | {"variant": "canary"}), 3).variant == "canary"
    with pytest.raises(Problem) as problem:
        parse_score_query(orjson.dumps(change(body)), 3)
    assert (problem.value.status, problem.value.name) == (400, "invalid-body")
