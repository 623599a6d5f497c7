"""A canary that returns NaN, one that is slow, one that is biased and one that crashes: each is stopped by the first
look that knows enough, at most its share of users is touched, and everybody is answered."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from infra.errors import GateRefused, StoreError, UsageError
from infra.model_golden import Golden
from infra.model_routes import LOOKUP, NIGHTLY, Canary, ModelRef, Route, RouteStore, Surface, routed
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.releases import Release, ReleaseStore
from infra.settings import LadderSettings, LeafSettings, ModelSettings, Settings
from infra.store import ObjectStore, open_store
from infra.variants import forget_variants, variants_of
from jobs.nightly_model import push_nightly
from jobs.variant_lists import make, make_all, rank_variants, wanted_of
from lookup_api import leaf_ranks
from lookup_api.canary_guard import USUAL, Bounds
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, Offer, Query
from lookup_api.live_rung import Live
from lookup_api.lookup import NO_FACTS, Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.model_check import check_model
from lookup_api.served_release import ServedRelease
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import above_mean, onnx_weights
from tests.lookup_api.test_routed_models import models_of, route
from tests.suites.command import pymk_json
from tests.suites.crashing_leaf import CRASHES
from tests.suites.leaf_processes import LeafProcess
from tests.suites.live_store import LIVE_SETTINGS, SERVED, guarded_graph, live_artifacts, publish_live
from tests.suites.model_folders import small_spec, write_folder
from tests.suites.served_store import current_release

SHARE = 0.3
LOOK_EVERY = 4
"""Requests between two looks of the worker."""
OF_LISTS = (*SERVED, "graph", "embeddings", "features", "rankings")
"""What of a night lists are made of."""
MOST = 20 + LOOK_EVERY
"""Lists of a canary that is slow or biased: so many must be seen first."""

NODES: dict[str, list[tuple[str, list[str], str]]] = {
    "sound": [("Identity", ["candidate_degree"], "score")],
    "slow": [("Identity", ["candidate_degree"], "score")],
    CRASHES: [("Identity", ["candidate_degree"], "score")],
    "nan": [("Neg", ["viewer_degree"], "no"), ("Sqrt", ["no"], "root"), ("Add", ["candidate_degree", "root"], "score")],
    "biased": [("Mul", ["viewer_degree", "much"], "bias"), ("Add", ["candidate_degree", "bias"], "score")],
}
"""What each does; as long as the viewer has no friends, as in the golden batch, all are sound."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("kinds")
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "made", guarded_graph()), kinds=OF_LISTS, settings=LIVE_SETTINGS)
    return store


@pytest.fixture(scope="module")
def release(night: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(night) as opened:
        yield opened


def users() -> list[int]:
    return [int(user) for user in guarded_graph().ids]


def pushed(store: ObjectStore, release: ServedRelease, folder: Path, kind: str) -> ModelRef:
    from onnx import TensorProto, helper

    names = ("candidate_degree", "viewer_degree")
    spec = small_spec(name=kind, version="1", kind="onnx", inputs=tuple(InputSpec(name=name) for name in names))
    ref = ModelRef(name=kind, version="1")
    if ref.version in {one.version for one in Registry(store).list(kind)}:
        return ref
    degrees = release.users(users()).features[:, 0]
    weights = onnx_weights(
        [(name, TensorProto.FLOAT, ["n"]) for name in names],
        [helper.make_node(op, inputs, [output]) for op, inputs, output in NODES[kind]],
        **({"much": np.float32(50)} if kind == "biased" else {}),
    )
    golden = Golden({"candidate_degree": degrees, "viewer_degree": np.zeros_like(degrees)}, degrees)
    Registry(store).push(write_folder(folder, spec, weights, golden), check_model, NOW, "a")
    return ref


def lookup_on(store: ObjectStore, *addresses: str, p95_ms: float = 60_000) -> Lookup:
    """p95_ms: of scoring, from which a canary is too slow; the machine is not."""
    ladder = LadderSettings(live_budget_ms=60_000, ann_budget_ms=60_000, l1_mib=0, breaker_failures=1000)
    leaves = LeafSettings(addresses=addresses, timeout_ms=60_000)
    bounds = ModelSettings(canary_p95_ms=p95_ms)
    values = LIVE_SETTINGS.model_copy(update={"ladder": ladder, "leaves": leaves, "models": bounds})
    lookup = Lookup.of(Settings.model_validate(values.model_dump()), Metrics(), store.uri)
    assert lookup.models is not None
    lookup.models.look()
    return lookup


def offered(lookup: Lookup, release: ServedRelease, user: int) -> Offer:
    rung = next(rung for rung in lookup.ladder.rungs if isinstance(rung, Live))
    offer = rung.offer(Ask(Query(user, 100, frozenset(), False), release, NO_FACTS, Deadline.after(60)))
    assert offer is not None
    return offer


def stopped(store: ObjectStore) -> str | None:
    surface = RouteStore(store).read().of(LOOKUP)
    return surface.stopped[0].why if surface.route.canary is None else None


class Seen:
    """What users were shown while a canary was routed: who had it, and by whom it was tried for."""

    def __init__(self, lookup: Lookup, release: ServedRelease, own: dict[int, bytes], ref: ModelRef) -> None:
        self.shown: list[int] = []
        self.fell_back: list[int] = []
        canary = Canary(model=ref, share=SHARE)
        for number, user in enumerate(own):
            assert lookup.models is not None
            tried = lookup.models.chosen(user) is not None
            offer = offered(lookup, release, user)
            if offer.by is not None:
                assert offer.by == (str(ref), "canary")
                self.shown.append(user)
            else:
                assert (offer.blob, offer.degraded) == (own[user], False), "as if there were no canary"
                self.fell_back += [user] * tried
            if number % LOOK_EVERY == 0:
                lookup.models.look()
        touched = np.array([*self.shown, *self.fell_back], np.int64)
        assert canary.has_each(LOOKUP, touched).all(), "nobody outside of its share"


@pytest.fixture(scope="module")
def own(night: ObjectStore, release: ServedRelease) -> dict[int, bytes]:
    """Everybody's list by the ranker of the release."""
    lookup = lookup_on(night)
    return {user: offered(lookup, release, user).blob for user in users()}


@pytest.mark.parametrize(
    ("kind", "why", "most_shown", "most_tried"),
    [
        ("sound", None, 240, 0),
        ("nan", "requests failed", 0, 3 + LOOK_EVERY),
        ("slow", "p95 of scoring", MOST, 0),
        ("biased", "stability index", MOST, 0),
    ],
)
def test_a_bad_canary_is_stopped_and_nobody_is_left_without_an_answer(
    kind: str,
    why: str | None,
    most_shown: int,
    most_tried: int,
    night: ObjectStore,
    release: ServedRelease,
    own: dict[int, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ref = pushed(night, release, tmp_path / "model", kind)
    route(night, canary=Canary(model=ref, share=SHARE))
    lookup = lookup_on(night, p95_ms=50 if kind == "slow" else 60_000)
    if kind == "slow":  # the clock of whoever times it goes on by 60 ms each time it is looked at
        ticks = itertools.count()
        slow = SimpleNamespace(perf_counter=lambda: next(ticks) * 0.06, monotonic=leaf_ranks.time.monotonic)
        monkeypatch.setattr(leaf_ranks, "time", slow)
    seen = Seen(lookup, release, own, ref)
    said = stopped(night)
    assert (said is None) == (why is None)
    assert why is None or why in str(said)
    assert len(seen.shown) <= most_shown
    assert len(seen.fell_back) <= most_tried
    assert len(seen.shown) >= 20 or kind == "nan"
    RouteStore(night).change(LOOKUP, routed(Route(), force=True), "2026-01-01T00:00:00Z", "a")


class CrashingLeaf(LeafProcess):
    def __init__(self, store_uri: str) -> None:
        super().__init__(store_uri)

    def start(self) -> None:
        self._command = ["tests.suites.crashing_leaf" if one == "jobs.cli" else one for one in self._command]
        super().start()


def test_a_canary_that_ends_its_leaves_is_stopped_by_its_first_request(
    night: ObjectStore, release: ServedRelease, own: dict[int, bytes], tmp_path: Path
) -> None:
    ref = pushed(night, release, tmp_path / "model", CRASHES)
    started = [CrashingLeaf(night.uri) for _ in range(2)]
    try:
        for leaf in started:
            leaf.wait_until_ready()
        route(night, canary=Canary(model=ref, share=SHARE))
        lookup = lookup_on(night, *(leaf.address for leaf in started))
        assert lookup.models is not None
        assert any(lookup.models.chosen(user) for user in own)
        seen = Seen(lookup, release, dict(list(own.items())[:60]), ref)
        assert (seen.shown, len(seen.fell_back) <= LOOK_EVERY) == ([], True)
        assert stopped(night) == "it ended the leaves that scored by it"
        assert [leaf.process.wait() for leaf in started] == [-11, -11], "its own pair, and no worker"
    finally:
        for leaf in started:
            leaf.kill()
    RouteStore(night).change(LOOKUP, routed(Route(), force=True), "2026-01-01T00:00:00Z", "a")


CRASHING_WORKER = """
import ctypes, os, sys
import numpy as np
from infra.store import open_store
from lookup_api.leaf_ranks import HereRanks
from tests.suites.leaf_models import soon
from tests.lookup_api.test_routed_models import models_of

models = models_of(open_store(sys.argv[1]))
models.look()
HereRanks.timed = lambda self, columns, deadline: ctypes.string_at(0)
models.chosen(1).model.timed({"candidate_degree": np.ones(3, np.float32)}, soon())
"""


@pytest.mark.parametrize("beside", [True, False])
def test_a_canary_that_ends_a_server_process_is_stopped_by_the_next_or_by_one_beside_it(
    beside: bool, night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    ref = pushed(night, release, tmp_path / "model", "sound")
    route(night, canary=Canary(model=ref, share=1))
    other = models_of(night)
    if beside:
        other.look()
        assert other.chosen(1) is not None
    done = subprocess.run([sys.executable, "-c", CRASHING_WORKER, night.uri], check=False)
    assert done.returncode == -11
    other.look()
    assert other.chosen(1) is None
    assert "ended while it scored" in str(stopped(night))
    RouteStore(night).change(LOOKUP, routed(Route(canary=Canary(model=ref, share=1)), force=True), "2026", "a")
    other.look()
    assert other.chosen(1) is not None, "what was known against it is forgotten"
    RouteStore(night).change(LOOKUP, routed(Route(), force=True), "2026", "a")


def test_a_process_that_ends_between_requests_is_held_against_nobody(
    night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    ref = pushed(night, release, tmp_path / "model", "sound")
    route(night, canary=Canary(model=ref, share=1))
    quiet = CRASHING_WORKER.replace("HereRanks.timed", "_").replace(
        "models.chosen(1)", "os.kill(os.getpid(), 9) or models.chosen(1)"
    )
    assert subprocess.run([sys.executable, "-c", quiet, night.uri], check=False).returncode == -9
    other = models_of(night)
    other.look()
    assert other.chosen(1) is not None
    RouteStore(night).change(LOOKUP, routed(Route(), force=True), "2026", "a")


@pytest.fixture
def tonight(night: ObjectStore) -> Iterator[Release]:
    """The release of the night, without lists by others, of a store without routes; the store is left like that."""
    release = ReleaseStore(night).list()[0]
    RouteStore(night).change(LOOKUP, lambda surface: Surface(), "2026", "a")
    yield release
    RouteStore(night).change(LOOKUP, lambda surface: Surface(), "2026", "a")
    forget_variants(night, release.release_id)


def ranked_by(store: ObjectStore, release: Release) -> list[str]:
    return [one.model for one in variants_of(store, release.release_id)]


@pytest.mark.parametrize(
    ("kind", "bounds", "why"),
    [
        ("sound", USUAL, None),
        (NIGHTLY, USUAL, None),
        ("nan", USUAL, "or some that are not finite"),
        ("biased", USUAL, "stability index of its scores is"),
        ("biased", Bounds(drift=100), None),
        ("biased", Bounds(requests=1000), None),
    ],
)
def test_a_canary_is_held_to_the_bounds_of_live_requests_before_its_lists_are_kept(
    kind: str,
    bounds: Bounds,
    why: str | None,
    night: ObjectStore,
    release: ServedRelease,
    tonight: Release,
    tmp_path: Path,
) -> None:
    if kind == NIGHTLY:
        ref = ModelRef(name=NIGHTLY, version=push_nightly(night, tonight, 0).version)
    else:
        ref = pushed(night, release, tmp_path / "model", kind)
    asked, lines = Canary(model=ref, share=SHARE), []
    route(night, canary=asked)
    rank_variants(night, tonight, lines.append, bounds)
    surface = RouteStore(night).read().of(LOOKUP)
    if why is None:
        assert ranked_by(night, tonight) == [str(ref)]
        assert (surface.route.canary, surface.stopped) == (asked, ())
        return
    assert ranked_by(night, tonight) == []
    assert surface.route == Route()
    [stopped] = surface.stopped
    assert (stopped.model, stopped.why.partition(": ")[0]) == (ref, f"lists of {tonight.release_id}")
    assert why in stopped.why
    assert f"warning: {ref} made no lists: canary {ref} of {LOOKUP} is taken off" in lines[-1]


def test_the_stable_model_is_told_of_and_not_stopped(
    night: ObjectStore, release: ServedRelease, tonight: Release, tmp_path: Path
) -> None:
    for kind, kept in (("nan", []), ("biased", ["biased@1"])):
        ref, lines = pushed(night, release, tmp_path / kind, kind), []
        route(night, stable=ref)
        rank_variants(night, tonight, lines.append)
        assert ranked_by(night, tonight) == kept
        assert lines[-1].startswith("warning: nan@1 made no lists: scores") == (not kept)
        surface = RouteStore(night).read().of(LOOKUP)
        assert (surface.route.stable, surface.stopped) == (ref, ())


def test_the_command_keeps_the_stable_models_lists_says_what_stopped_the_canary_and_takes_bounds(
    night: ObjectStore, release: ServedRelease, tonight: Release, tmp_path: Path
) -> None:
    good, bad = (pushed(night, release, tmp_path / kind, kind) for kind in ("sound", "biased"))
    canary = Canary(model=bad, share=SHARE)
    route(night, stable=good, canary=canary)
    said = f"canary biased@1 of {LOOKUP} is taken off; lists of {tonight.release_id}: stability.*--force"
    with pytest.raises(GateRefused, match=said):
        make_all(night, tonight, LOOKUP, lambda line: None)
    assert ranked_by(night, tonight) == ["sound@1"]
    RouteStore(night).change(LOOKUP, routed(Route(canary=canary), force=True), "2026", "a")
    [made] = pymk_json("model", "rank", "--store", night.uri, "--set", "models.canary_drift=100")["lists"]
    assert made["model"] == "biased@1"


def test_a_night_goes_on_where_the_route_is_another_by_then_or_cannot_be_written(
    night: ObjectStore, release: ServedRelease, tonight: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, lines = pushed(night, release, tmp_path / "model", "nan"), []
    route(night, canary=Canary(model=ref, share=SHARE))
    before = RouteStore(night).read()
    with monkeypatch.context() as patch:
        patch.setattr(RouteStore, "change", Mock(side_effect=StoreError("away")))
        rank_variants(night, tonight, lines.append)
    assert "could not be taken off (away)" in lines[-1]
    assert RouteStore(night).read() == before
    route(night)
    now = RouteStore(night).stored()
    with monkeypatch.context() as patch:
        patch.setattr(RouteStore, "read", lambda self: before)
        rank_variants(night, tonight, lines.append)
    assert "is not routed any more" in lines[-1]
    assert RouteStore(night).stored() == now
    assert ranked_by(night, tonight) == []


def test_neither_a_model_of_lists_nor_a_store_that_is_away_stops_a_canary(
    night: ObjectStore, tonight: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small_spec(name="lists", kind="onnx", inputs=(InputSpec(name="walk"),), unit="list")
    Registry(night).push(write_folder(tmp_path / "model", spec, above_mean()), lambda *_: {}, NOW, "a")
    route(night, canary=Canary(model=ModelRef(name="lists", version="1"), share=SHARE))
    with pytest.raises(UsageError, match="scores lists"):
        make_all(night, tonight, LOOKUP, lambda line: None)
    [wanted] = wanted_of(LOOKUP, RouteStore(night).read().of(LOOKUP).route, USUAL)
    monkeypatch.setattr(Registry, "open", Mock(side_effect=StoreError("away")))
    with pytest.raises(StoreError, match="away"):
        make(night, tonight, wanted, lambda line: None)
    assert RouteStore(night).read().of(LOOKUP).stopped == ()
