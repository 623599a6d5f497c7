"""Shadows score unseen what others answered: nobody waits for them, who is busy drops them first, and what they say is
kept without a name."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry

from infra.blob_batches import Users
from infra.errors import StoreError
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.schemas import SHADOWS
from infra.serving_settings import ShadowSettings
from infra.shadow_files import DROPPED, FOLDER, files_of, remove_old
from infra.store import ObjectStore, open_store
from lookup_api import model_marks, shadow_log
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import LeafBusy
from lookup_api.load import FEWER, FULL, Load
from lookup_api.lookup import NO_FACTS
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES
from lookup_api.root.gathered import Gathered
from lookup_api.score_request import ScoreQuery
from lookup_api.scores import Scoring
from lookup_api.served_release import ServedRelease
from lookup_api.shadow_guard import FIRST_S, KEPT_S, ShadowGuard
from lookup_api.shadow_log import Row, ShadowLog
from lookup_api.shadow_metrics import ShadowMetrics
from lookup_api.shadows import By, Shadows
from tests.lookup_api.test_routed_models import (  # noqa: F401 — fixtures
    LIVE_SETTINGS,
    lookup_on,
    night,
    offered,
    push,
    release,
    route,
    scores,
)
from tests.suites.live_store import guarded_graph
from tests.suites.model_folders import small_spec

SMALL = ModelRef(name="small", version="1")
PEOPLE = 7


def gathered(seed: int = 1) -> Gathered:
    draw = np.random.default_rng(seed)
    users = Users(np.ones(PEOPLE, np.bool_), np.zeros((PEOPLE, 1), np.float32), np.zeros((PEOPLE, 1), np.int32), 0, ())
    known = np.ones(PEOPLE, np.bool_)
    pairs = draw.random((PEOPLE, len(PAIR_FEATURES))).astype(np.float16)
    mine, theirs = draw.random((2, len(USER_FEATURES))).astype(np.float32)
    return Gathered(users, pairs, mine, np.tile(theirs, (PEOPLE, 1)), known, known, True, True, 0.0)


def by(seed: int = 1) -> By:
    scores = np.random.default_rng(seed).random(PEOPLE).astype(np.float32)
    return By("release", "stable", "20260101T000000Z", 2.5, scores)


class HeldLeaf:
    """A leaf that scores one request at a time, as it is let."""

    def __init__(self) -> None:
        self.entered, self.let = threading.Semaphore(0), threading.Semaphore(0)

    def score(self, model: ModelRef, columns: Mapping[str, Any], deadline: Deadline) -> np.ndarray:
        self.entered.release()
        self.let.acquire()
        return np.arange(PEOPLE, dtype=np.float32)

    def close(self) -> None: ...


class QuickLeaf(HeldLeaf):
    """One that does so at once, and fails of what it is told to fail of."""

    def __init__(self, error: Exception | None = None, scores: float = 1.0) -> None:
        super().__init__()
        self.error, self.scores = error, scores

    def score(self, model: ModelRef, columns: Mapping[str, Any], deadline: Deadline) -> np.ndarray:
        if self.error:
            raise self.error
        return np.full(PEOPLE, self.scores, np.float32)


def shadows_of(
    store: ObjectStore, leaf: HeldLeaf, clock: Callable[[], float] | None = None, **settings: Any
) -> Shadows:
    """clock: of the guard of shadows that this process scores."""
    counts = ShadowMetrics(CollectorRegistry())
    guard = ShadowGuard(store.uri, counts.stopped, clock) if clock else None
    spec = small_spec(inputs=(InputSpec(name="walk"), InputSpec(name="viewer_degree")))
    values = ShadowSettings(**{"file_s": 3600} | settings)
    return Shadows(store.uri, values, leaf, lambda ref, deadline: spec, counts, guard)


def counted(shadows: Shadows, outcome: str) -> float:
    found: float = shadows._counts.requests.labels("small@1", outcome)._value.get()
    return found


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a thread of the lowest priority would not be done within any time."""
    monkeypatch.setattr("lookup_api.shadows.NICENESS", 0)
    monkeypatch.setattr("lookup_api.shadows.ENDING_S", 60.0)


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def files(store: ObjectStore, surface: str = LOOKUP) -> list[pq.ParquetFile]:
    keys = files_of(store, surface, datetime(1970, 1, 1, tzinfo=UTC))
    return [pq.ParquetFile(store.open_local(key)) for key in keys]


def rows(store: ObjectStore, surface: str = LOOKUP) -> list[dict[str, Any]]:
    return [row for file in files(store, surface) for row in file.read().to_pylist()]


def dropped(store: ObjectStore) -> dict[str, dict[str, int]]:
    [file] = files(store)
    found: dict[str, dict[str, int]] = orjson.loads(file.metadata.metadata[DROPPED])
    return found


def test_scores_and_inputs_of_a_shadow_are_kept_beside_what_answered(store: ObjectStore) -> None:
    shadows, seen = shadows_of(store, QuickLeaf()), gathered()
    shadows.offer(LOOKUP, (SMALL,), seen, by())
    shadows.stop()
    answered, shadow = rows(store)
    assert [row["model"] for row in (answered, shadow)] == ["release", "small"]
    assert (answered["version"], answered["variant"], answered["ms"]) == ("20260101T000000Z", "stable", 2.5)
    np.testing.assert_array_equal(np.float32(answered["scores"]), by().scores)
    assert (shadow["variant"], shadow["outcome"], shadow["scores"]) == ("shadow", "answered", [1.0] * PEOPLE)
    inputs = dict(shadow["inputs"])
    assert inputs.keys() == {"walk", "viewer_degree"}, "no more than the model takes"
    np.testing.assert_array_equal(np.float32(inputs["walk"]), seen.pairs[:, PAIR_FEATURES.index("walk")])
    assert {row["request"] for row in (answered, shadow)} == {0}
    assert files(store)[0].schema_arrow.remove_metadata() == pa.schema([(f.name, f.type, f.nullable) for f in SHADOWS])


def test_nothing_that_is_kept_names_anybody() -> None:
    assert {"user_id", "other_id", "candidate_id"}.isdisjoint(SHADOWS.names)


def test_a_shadow_that_fails_is_told_as_failed(store: ObjectStore) -> None:
    for leaf in (QuickLeaf(ValueError("bad")), QuickLeaf(scores=np.nan)):
        shadows = shadows_of(store, leaf)
        shadows.offer(LOOKUP, (SMALL,), gathered(), by())
        shadows.stop()
        assert counted(shadows, "failed") == 1
    assert [(row["outcome"], row["scores"]) for row in rows(store) if row["variant"] == "shadow"] == [
        ("failed", None)
    ] * 2


def test_a_shadow_whose_leaf_scores_for_others_is_dropped(store: ObjectStore) -> None:
    shadows = shadows_of(store, QuickLeaf(LeafBusy("others are scored")))
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.stop()
    assert (counted(shadows, "busy"), rows(store)) == (1, [])


def test_a_shadow_in_whose_hands_a_worker_ended_is_left_out_for_longer_each_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]

    def ended() -> None:
        leaf = HeldLeaf()
        worker = shadows_of(store, leaf, lambda: now[0])
        worker.offer("feed", (SMALL,), gathered(), by())
        leaf.entered.acquire()  # as far as it came
        with monkeypatch.context() as patched:
            patched.setattr(model_marks, "is_gone", lambda process: True)
            assert scored() == "crashed"
        leaf.let.release()
        worker.stop()

    def scored() -> str:
        """What becomes of a request of a worker that comes then."""
        shadows, log = shadows_of(store, QuickLeaf(), lambda: now[0]), ShadowLog(lambda: store, 3600, 1 << 20)
        shadows._start = lambda: None  # type: ignore[method-assign]
        shadows.offer("feed", (SMALL,), gathered(), by())
        shadows.step(log)
        [outcome] = [one for one in ("answered", "crashed") if counted(shadows, one)]
        return outcome

    assert scored() == "answered"
    for wait_s in (FIRST_S, 2 * FIRST_S):
        ended()
        now[0] += wait_s - 1
        assert scored() == "crashed", "another worker knows"
        now[0] += wait_s + 1  # of several one tries first
        assert scored() == "answered"
    now[0] += KEPT_S + 1
    ended()
    now[0] += 2 * FIRST_S
    assert scored() == "answered", "what was long ago is forgotten"


def test_a_full_queue_drops_and_counts(store: ObjectStore) -> None:
    leaf = HeldLeaf()
    shadows = shadows_of(store, leaf, queue=2)
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    leaf.entered.acquire()  # the first is being scored; two may wait
    for _ in range(5):
        shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    assert counted(shadows, "full") == 3
    leaf.let.release(3)
    shadows.stop()
    assert (counted(shadows, "answered"), dropped(store)) == (3, {"small@1": {"full": 3}})


class Busy(Load):
    """A load of which a test says how high it is."""

    def __init__(self, share: float, in_hand: int = 1) -> None:
        super().__init__(1, 0.75, 0.9)
        self.share, self._running = share, in_hand


@pytest.mark.parametrize(("share", "level", "scored"), [(0.5, FULL, 1), (0.61, FULL, 0), (0.1, FEWER, 0)])
def test_shadows_are_dropped_before_answers_get_worse(
    store: ObjectStore, share: float, level: int, scored: int
) -> None:
    shadows = shadows_of(store, QuickLeaf())
    shadows.load = Busy(share)
    shadows.offer(LOOKUP, (SMALL,), gathered(), by(), level)
    shadows.stop()
    assert (counted(shadows, "answered"), counted(shadows, "busy")) == (scored, 1 - scored)


def test_a_worker_that_was_busy_is_left_alone_for_a_moment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("lookup_api.shadows.time.monotonic", lambda: now[0])
    shadows = shadows_of(store, QuickLeaf())
    shadows._start = lambda: None  # type: ignore[method-assign]
    found = []
    for share, later in ((0.1, 0.0), (0.9, 0.0), (0.1, 1.0), (0.1, 1.5)):
        now[0] += later
        shadows.load = Busy(share)
        found.append(shadows._why_not(FULL))
    assert found == [None, "busy", "busy", None]


def test_what_waits_when_the_worker_gets_busy_is_dropped(store: ObjectStore) -> None:
    leaf = HeldLeaf()
    shadows = shadows_of(store, leaf)
    shadows.load = Busy(0.1, in_hand=0)
    for _ in range(4):
        shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    leaf.entered.acquire()
    shadows.load = Busy(0.9)
    leaf.let.release()
    shadows.stop()
    assert (counted(shadows, "answered"), counted(shadows, "busy")) == (1, 3)


def test_a_share_of_the_requests_is_scored(store: ObjectStore) -> None:
    shadows = shadows_of(store, QuickLeaf(), share=0)
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.stop()
    assert rows(store) == []


def test_what_the_store_cannot_take_is_lost_and_counted(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(uri: str, **how: Any) -> ObjectStore:
        raise StoreError(f"{uri}: is read-only")

    monkeypatch.setattr("lookup_api.shadows.open_store", away)
    shadows = shadows_of(store, QuickLeaf())
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.stop()
    assert shadows._counts.lost._value.get() == 1


def test_a_server_that_is_to_end_stores_what_it_has_and_scores_no_more(store: ObjectStore) -> None:
    shadows = shadows_of(store, QuickLeaf())
    log = ShadowLog(lambda: store, 3600, 1 << 20)
    shadows._start = lambda: None  # type: ignore[method-assign]
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.step(log)
    assert rows(store) == []
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.is_ending = lambda: True
    shadows.step(log)
    assert (len(rows(store)), counted(shadows, "ending")) == (2, 1)
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    assert counted(shadows, "ending") == 2


def row(rows: int = 10, name: str = "small") -> Row:
    return Row(name, "1", "shadow", "answered", 1.0, np.zeros(rows, np.float32))


def test_files_end_by_age_and_by_size_and_row_groups_are_bounded(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_log, "GROUP_BYTES", 400)
    monkeypatch.setattr(shadow_log, "FILE_BYTES", 1200)
    now = [0.0]
    log = ShadowLog(lambda: store, 60, 1 << 20, clock=lambda: now[0])
    for _ in range(35):
        log.add("feed", 0, [row()])
    log.roll()
    assert [file.num_row_groups for file in files(store, "feed")] == [3], "of ten requests each; five wait"
    now[0] = 60.0
    log.roll()
    assert [file.metadata.num_rows for file in files(store, "feed")] == [30, 5]


def test_no_more_is_stored_in_an_hour_than_may_be(store: ObjectStore) -> None:
    now = [0.0]
    log = ShadowLog(lambda: store, 0.0, 1, clock=lambda: now[0])
    assert log.has_room
    log.add("feed", 0, [row()])
    log.roll()
    assert not log.has_room
    now[0] = 3600.0
    assert log.has_room


def test_what_waits_when_enough_is_stored_is_dropped_and_so_is_what_comes(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_log, "GROUP_BYTES", 1)
    monkeypatch.setattr(shadow_log, "FILE_BYTES", 1)
    shadows, now = shadows_of(store, QuickLeaf()), [0.0]
    log = ShadowLog(lambda: store, 1e9, 1, clock=lambda: now[0])
    shadows._start = lambda: None  # type: ignore[method-assign]
    for requests, answered, spent in ((3, 1, 2), (1, 1, 3)):
        for _ in range(requests):
            shadows.offer(LOOKUP, (SMALL,), gathered(), by())
        shadows.step(log)
        assert (counted(shadows, "answered"), counted(shadows, "spent")) == (answered, spent)
    now[0] = 3600.0
    shadows.step(log)
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.step(log)
    assert counted(shadows, "answered") == 2


class AskedMeanwhile(QuickLeaf):
    """One that is asked again while it scores, each time."""

    shadows: Shadows

    def score(self, model: ModelRef, columns: Mapping[str, Any], deadline: Deadline) -> np.ndarray:
        assert counted(self.shadows, "answered") < 100
        self.shadows.offer(LOOKUP, (SMALL,), gathered(), by())
        return super().score(model, columns, deadline)


def test_under_a_load_that_never_ends_files_are_stored_and_a_server_that_is_to_end_does(store: ObjectStore) -> None:
    leaf = AskedMeanwhile()
    shadows = leaf.shadows = shadows_of(store, leaf)
    log = ShadowLog(lambda: store, 0.0, 1 << 20)
    shadows._start = lambda: None  # type: ignore[method-assign]
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    for done in (1, 2):
        shadows.step(log)
        assert (counted(shadows, "answered"), len(files(store))) == (done, done)
    shadows.is_ending = lambda: counted(shadows, "answered") > 2
    shadows.offer(LOOKUP, (SMALL,), gathered(), by())
    shadows.step(log)
    assert (counted(shadows, "answered"), counted(shadows, "ending"), len(shadows._waiting)) == (3, 1, 1)


def test_old_days_are_removed(store: ObjectStore) -> None:
    now = [0.0]
    log = ShadowLog(lambda: store, 1.0, 1 << 20, clock=lambda: now[0])
    for day in range(3):
        now[0] = day * 86_400.0
        log.add("feed", 0, [row()])
        log.roll(all_of_them=True)
    assert remove_old(store, datetime(1970, 1, 3, 12, tzinfo=UTC)) == [
        f"{FOLDER}/feed/1970-01-01",
        f"{FOLDER}/feed/1970-01-02",
    ]
    assert len(list(files_of(store, "feed", datetime(1970, 1, 1, tzinfo=UTC)))) == 1
    assert list(files_of(store, "feed", datetime(1970, 1, 3, 0, 0, 1, tzinfo=UTC))) == []


def test_lists_ranked_live_are_shadowed_and_are_what_they_were(
    night: ObjectStore,  # noqa: F811
    release: ServedRelease,  # noqa: F811
    tmp_path: Path,
) -> None:
    user = int(guarded_graph().ids[3])
    own = scores(offered(lookup_on(night), release, user))
    canary, shadow = push(night, tmp_path / "c", "c", 1), push(night, tmp_path / "s", "s", -1)
    for variant, parts in (("stable", {}), ("canary", {"canary": Canary(model=canary, share=1)})):
        night.delete_folder(f"{FOLDER}/")
        route(night, shadows=(shadow,), **parts)
        lookup = lookup_on(night)
        found = scores(offered(lookup, release, user))
        assert (found == own) == (variant == "stable")
        assert offered(lookup, release, user).cache == "l1", "a list that is kept is not scored again"
        assert lookup.shadows is not None
        lookup.shadows.stop()
        answered, unseen = rows(night)
        assert (answered["variant"], unseen["version"], unseen["variant"]) == (variant, "s", "shadow")
        degrees = np.float32(dict(unseen["inputs"])["candidate_degree"])
        np.testing.assert_array_equal(np.float32(unseen["scores"]), -degrees)
        assert len(answered["scores"]) == len(unseen["scores"])
    route(night)


@contextmanager
def scoring_on(store: ObjectStore) -> Iterator[Scoring]:
    lookup = lookup_on(store)
    assert lookup.root is not None
    yield Scoring(lookup.root, lookup.counts, LIVE_SETTINGS.ladder, 5, lookup.shadows)
    assert lookup.shadows is not None
    lookup.shadows.stop()
    lookup.root.close()


def test_surfaces_that_are_scored_for_are_shadowed(
    night: ObjectStore,  # noqa: F811
    release: ServedRelease,  # noqa: F811
    tmp_path: Path,
) -> None:
    stable, shadow = push(night, tmp_path / "1", "f1", 1), push(night, tmp_path / "2", "f2", 2)
    RouteStore(night).change("feed", routed(Route(stable=stable, shadows=(shadow,))), "2026-01-01T00:00:00Z", "a")
    people = [int(person) for person in guarded_graph().ids[5:30]]
    query = ScoreQuery(int(guarded_graph().ids[4]), tuple(people), ("feed", "small@f1", "release"))
    with scoring_on(night) as scoring:
        told = scoring.answer(query, release, NO_FACTS, Deadline.after(60), FULL)
    answered, unseen = rows(night, "feed")
    allowed = ~np.isnan(told["scores"]["feed"])
    np.testing.assert_array_equal(np.float32(answered["scores"]), told["scores"]["feed"][allowed])
    np.testing.assert_allclose(unseen["scores"], 2 * np.float32(answered["scores"]))
    assert answered["ms"] > 0
    live, apart = (leaf.counts for leaf in (scoring.root.leaf, scoring.shadows._leaf))  # type: ignore[attr-defined, union-attr]
    assert [{str(model) for model, _ in one._requests} for one in (live, apart)] == [{"small@f1"}, {"small@f2"}]
    assert live.models._name != apart.models._name, "workers share values by name"
    assert type(scoring.shadows._guard) is ShadowGuard  # type: ignore[union-attr]


def test_a_route_without_shadows_starts_nothing(
    night: ObjectStore,  # noqa: F811
    release: ServedRelease,  # noqa: F811
) -> None:
    lookup = lookup_on(night)
    offered(lookup, release, int(guarded_graph().ids[6]))
    assert lookup.shadows is not None
    assert lookup.shadows._thread is None
