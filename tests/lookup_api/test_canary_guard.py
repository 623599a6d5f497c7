"""A canary that fails, is slow or scores otherwise is taken off by the first worker that sees it."""

from pathlib import Path

import numpy as np
import pytest

from infra.errors import StoreError
from infra.model_routes import LOOKUP, Canary, Route, RouteStore, routed
from infra.settings import ModelSettings
from infra.store import ObjectStore, open_store
from lookup_api.canary_guard import OTHERS, Bounds, Guard
from lookup_api.deadline import TooLate
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.leaves.protocol import ModelHangs, Timed
from lookup_api.metrics import Metrics
from lookup_api.root.asked_models import ModelFailed
from lookup_api.routed_models import Guarded, RoutedModels
from tests.lookup_api.test_routed_models import breaker, models_of, push, route
from tests.suites.leaf_models import soon
from tests.suites.model_folders import small_spec

GOLDEN = np.random.default_rng(1).normal(size=500).astype(np.float32)
USUAL = np.random.default_rng(2).normal(size=(200, 50)).astype(np.float32)


def guarded(now: list[float] | None = None) -> Guard:
    return Guard(GOLDEN, Bounds(), clock=lambda: now[0] if now else 0.0)


def test_a_canary_that_scores_as_usual_stays_for_ever() -> None:
    now = [0.0]
    guard = guarded(now)
    for scores in USUAL:
        guard.scored(5.0, scores)
        now[0] += 1.0
        assert guard.verdict() is None


@pytest.mark.parametrize("share", [1.0, 0.2, 0.06])
def test_one_that_fails_is_out_of_bounds_after_a_few_failures(share: float) -> None:
    guard, failures = guarded(), 0
    for number, scores in enumerate(USUAL):
        if number * share % 1 < share:
            guard.failed_by(None)
            failures += 1
        else:
            guard.scored(5.0, scores)
        if why := guard.verdict():
            break
    assert failures == 3
    assert why == f"3 of {number + 1} requests failed"


def test_two_failures_of_many_are_none() -> None:
    guard = guarded()
    for number, scores in enumerate(USUAL):
        guard.scored(5.0, scores) if number not in (3, 50) else guard.failed_by(None)
        assert guard.verdict() is None


def test_one_that_is_slow_is_out_of_bounds_once_there_are_enough_requests() -> None:
    guard = guarded()
    for scores in USUAL[:19]:
        guard.scored(60.0, scores)
        assert guard.verdict() is None
    guard.scored(60.0, USUAL[20])
    assert guard.verdict() == "p95 of scoring is 60.0 ms, 50 are allowed"


def test_what_a_model_can_do_nothing_for_is_not_held_against_it_but_late_answers_and_hangs_are() -> None:
    guard = guarded()
    for kind in OTHERS:
        for _ in range(5):
            guard.failed_by(kind("elsewhere"))
    assert guard.verdict() is None
    for kind in (TooLate, ModelHangs):
        guard = guarded()
        for _ in range(3):
            assert guard.verdict() is None
            guard.failed_by(kind("its own"))
        assert guard.verdict() == "3 of 3 requests failed"


def test_times_that_nobody_tells_are_none() -> None:
    """Of kept answers, and of leaves of an earlier version."""
    guard = guarded()
    for scores in USUAL[:40]:
        guard.scored(0.0, scores)
    for scores in USUAL[:5]:
        assert guard.verdict() is None
        guard.scored(60.0, scores)
    assert guard.verdict() == "p95 of scoring is 60.0 ms, 50 are allowed"


def test_the_time_that_counts_is_the_models_own() -> None:
    class Told:
        spec = small_spec()

        def timed(self, *asked: object) -> Timed:
            return Timed(USUAL[0], 60.0)

    guard = guarded()
    for _ in range(20):
        Guarded(Told(), guard).timed({"walk": USUAL[0]}, soon())
    assert guard.verdict() == "p95 of scoring is 60.0 ms, 50 are allowed"


@pytest.mark.parametrize(("shift", "stopped"), [(0.0, False), (0.5, False), (3.0, True), (-3.0, True)])
def test_one_whose_scores_moved_far_is_out_of_bounds(shift: float, stopped: bool) -> None:
    guard = guarded()
    for scores in USUAL[:20]:
        guard.scored(5.0, scores + np.float32(shift))
    why = guard.verdict()
    assert (why is not None) == stopped
    assert not stopped or "stability index" in str(why)


def test_scores_that_never_differ_say_nothing_of_drift() -> None:
    guard = Guard(np.zeros(50, np.float32))
    for scores in USUAL[:30]:
        guard.scored(1.0, scores)
    assert guard.verdict() is None


def test_counts_begin_anew_after_each_window_but_not_before_enough_requests() -> None:
    now = [0.0]
    guard = guarded(now)
    guard.failed_by(None)
    guard.failed_by(None)
    for scores in USUAL[:17]:
        guard.scored(5.0, scores)
    now[0] = 60.0
    assert guard.verdict() is None
    guard.scored(5.0, USUAL[18])
    assert guard.verdict() is None, "and these counts end here"
    guard.failed_by(None)
    assert guard.verdict() is None


def test_bounds_are_settings() -> None:
    assert Bounds.of(ModelSettings()) == Bounds()
    told = ModelSettings(
        canary_window_s=1,
        canary_requests=2,
        canary_failures=3,
        canary_failed_share=0.4,
        canary_p95_ms=5,
        canary_drift=6,
    )
    assert Bounds.of(told) == Bounds(window_s=1, requests=2, failures=3, failed=0.4, p95_ms=5, drift=6)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def canary_on(store: ObjectStore, folder: Path) -> tuple[RoutedModels, RoutedModels]:
    """Two workers of a store that has a canary for everybody."""
    route(store, canary=Canary(model=push(store, folder, "1", 1), share=1))
    workers = models_of(store), models_of(store)
    for worker in workers:
        worker.look()
    return workers


def fail(worker: RoutedModels, times: int = 3) -> None:
    chosen = worker.chosen(1)
    assert chosen is not None
    columns = {"candidate_degree": np.full(5, np.nan, np.float32)}
    for _ in range(times):
        with pytest.raises(ModelFailed):
            chosen.model.timed(columns, soon())


def test_what_one_worker_sees_stops_the_canary_for_all(store: ObjectStore, tmp_path: Path) -> None:
    one, other = canary_on(store, tmp_path / "1")
    fail(one, 2)
    one.look()
    assert one.chosen(1) is not None
    fail(one, 1)
    one.look()
    assert one.chosen(1) is None
    surface = RouteStore(store).read().of(LOOKUP)
    assert surface.route == Route()
    [stopped] = surface.stopped
    assert (str(stopped.model), stopped.why) == ("small@1", "3 of 3 requests failed")
    assert surface.by.startswith("a server on ")
    other.look()
    assert other.chosen(1) is None


def test_a_worker_judges_by_its_bounds(store: ObjectStore, tmp_path: Path) -> None:
    canary_on(store, tmp_path / "1")
    worker = RoutedModels(store.uri, 3600, LadderMetrics(Metrics().registry), breaker, bounds=Bounds(failures=1))
    worker.look()
    fail(worker, 1)
    worker.look()
    assert worker.chosen(1) is None


def test_a_stopped_canary_that_is_forced_back_is_judged_anew(store: ObjectStore, tmp_path: Path) -> None:
    one, _ = canary_on(store, tmp_path / "1")
    before = RouteStore(store).read().of(LOOKUP).route
    fail(one)
    one.look()
    RouteStore(store).change(LOOKUP, routed(before, force=True), "2026-01-01T00:00:00Z", "a")
    for _ in range(2):
        one.look()
        assert one.chosen(1) is not None
    assert RouteStore(store).read().of(LOOKUP).route == before


@pytest.mark.parametrize("can", ["be read", "do nothing"])
def test_where_the_store_cannot_be_written_the_canary_is_off_here_and_for_all_once_it_can(
    can: str, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = canary_on(store, tmp_path / "1")
    fail(one)

    def away(*asked: object, writable: bool = False) -> ObjectStore:
        raise StoreError("away")

    with monkeypatch.context() as patch:
        for module in ("routed_models", "taken_off"):
            patch.setattr(f"lookup_api.{module}.open_store", away)
        if can == "do nothing":
            patch.setattr(RouteStore, "stored", away)
        for _ in range(3):
            one.look()
            assert one.chosen(1) is None
    other.look()
    assert other.chosen(1) is not None
    one.look()
    other.look()
    assert (one.chosen(1), other.chosen(1)) == (None, None)
