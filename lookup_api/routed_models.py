"""The models that a surface is routed to, open in this worker: routes are followed in seconds, and swapped whole.

Where a model cannot be opened, what ranked before goes on: those of the earlier route, or the ranker of the release.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from infra.artifacts import local_copy
from infra.errors import PymkError
from infra.model_golden import read_golden
from infra.model_routes import CANARY, FILE, LOOKUP, STABLE, ModelRef, Route, RouteStore
from infra.model_spec import ModelSpec
from infra.models import Registry
from infra.store import ObjectStore, open_store
from infra.store_folder import FolderStore
from infra.stored_files import copies_of
from lookup_api.breaker import Breaker
from lookup_api.canary_guard import USUAL, Bounds, Guard
from lookup_api.deadline import Deadline
from lookup_api.ladder import RankedBy
from lookup_api.ladder_metrics import FAILED, LadderMetrics
from lookup_api.leaf_ranks import OPENED_S, HereRanks, defaults_of
from lookup_api.leaves.protocol import Timed
from lookup_api.model_marks import Mark, Marks, NoMark, marks_of
from lookup_api.ranking.scorers import Array, rows_of
from lookup_api.release_watch import FOLLOWER_NICENESS
from lookup_api.root.asked_models import ModelFailed, RanksColumns
from lookup_api.served_release import ServedRelease
from lookup_api.taken_off import take_off, why_ended
from lookup_api.variant_lists import VariantLists

log = logging.getLogger(__name__)

FIRST_LOOK_S = 5.0
LONGEST_WAIT_S = 60.0
"""Between tries to open a model that could not be opened."""


Opened = Callable[[ModelRef, ModelSpec, Path], RanksColumns]
"""Has a model, whose folder is given, rank. Raises whatever it dies of."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A routed model whose every failure is ModelFailed, a score that is no finite number too; its guard is told, but
    not of leaves that are away or load it, which is no fault of its own. mark: tells others where this process ends."""

    model: RanksColumns
    guard: Guard
    mark: Mark = field(default_factory=NoMark)

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    def timed(self, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """As RanksColumns. Raises ModelFailed."""
        rows = rows_of(columns)
        try:
            with self.mark:
                scores, ms = self.model.timed(columns, deadline)
            if scores.shape != (rows,) or not np.isfinite(scores).all():
                raise ModelFailed(f"scores {list(scores.shape)} of {rows} rows, or some that are not finite")
        except Exception as error:  # whatever a model dies of, the request goes on
            self.guard.failed_by(error)
            raise ModelFailed(str(error)) from error
        self.guard.scored(ms, scores)
        return Timed(scores, ms)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The model that ranks for somebody. breaker: open while it fails."""

    variant: str
    ref: ModelRef
    model: Guarded
    breaker: Breaker
    name: str


@dataclass(frozen=True, slots=True)
class _Open:
    """One route, open. stamp: another for every route."""

    route: Route
    stamp: int
    stable: Chosen | None
    canary: Chosen | None

    def of(self, surface: str, user_id: int) -> Chosen | None:
        if self.canary is not None and self.route.variant(surface, user_id) == CANARY:
            return self.canary
        return self.stable


def _chosen(variant: str, ref: ModelRef | None, opened: tuple[Guarded, Breaker] | None) -> Chosen | None:
    return Chosen(variant, ref, *opened, name=str(ref)) if ref and opened else None


_NOBODY = _Open(Route(), 0, None, None)


def in_process(ref: ModelRef, spec: ModelSpec, folder: Path) -> RanksColumns:
    return HereRanks.open(folder, spec)


class RoutedModels:
    """Safe to use from any thread. Until the first look, and where nothing is routed, the release ranks."""

    def __init__(
        self,
        store_uri: str,
        poll_s: float,
        counts: LadderMetrics,
        breaker: Callable[[str], Breaker],
        surface: str = LOOKUP,
        clock: Callable[[], float] = time.monotonic,
        opened: Opened = in_process,
        bounds: Bounds = USUAL,
    ) -> None:
        """breaker: makes one, by name. opened: has a model of the registry rank, here or elsewhere. bounds: of
        canaries."""
        self._store_uri = store_uri
        self._poll_s = poll_s
        self._counts = counts
        self._breaker = breaker
        self._surface = surface
        self._clock = clock
        self._opened = opened
        self._marks = Marks(marks_of(store_uri, surface))
        self._bounds = bounds
        self._store: ObjectStore | None = None
        self._seen: tuple[bool, str | None] = (False, None)
        self._models: dict[ModelRef, tuple[Guarded, Breaker]] = {}
        self._failed: dict[ModelRef, tuple[int, float]] = {}
        self._open = _NOBODY
        self._off: dict[ModelRef, str] = {}
        self._lists = VariantLists(poll_s, counts, clock)
        self._held: Callable[[], AbstractContextManager[ServedRelease | None]] = nullcontext
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="routed-models", daemon=True)

    def chosen(self, user_id: int) -> Chosen | None:
        """Who ranks for the user; None for the ranker of the release."""
        opened = self._open
        return None if opened is _NOBODY else opened.of(self._surface, user_id)

    @property
    def route(self) -> Route:
        """The route that is followed."""
        return self._open.route

    def listed(self, release: ServedRelease, user_id: int) -> tuple[RankedBy, bytes] | None:
        """The list that the user's model ranked at night; None where that is the release's own."""
        chosen = self.chosen(user_id)
        if chosen is None:
            return None
        try:
            found = self._lists.get(release, chosen.name, user_id)
        except PymkError as error:
            self._counts.models.labels(chosen.name, chosen.variant, FAILED).inc()
            log.warning("a list by %s cannot be read, the release's own is shown: %s", chosen.name, error)
            return None
        return None if found is None else ((chosen.name, chosen.variant), found)

    def follow_lists(self, held: Callable[[], AbstractContextManager[ServedRelease | None]]) -> None:
        """Has looks open lists of the release that is served then. held: a block that holds it open."""
        self._held = held

    @property
    def stamp(self) -> int:
        """Another number for every route and new lists, so that what was ranked by others is known; 0 for no route."""
        return self._open.stamp

    def start(self) -> None:
        """Looks once, unless that takes long, and from then on in the background."""
        self._thread.start()
        self._looked.wait(FIRST_LOOK_S)

    def stop(self) -> None:
        """Without waiting for a store that hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> None:
        """Follows the route, if it is another, and opens what could not be opened. Failures are logged and counted."""
        for step in (self._judge, self._look, self._look_for_lists, self._tell):
            try:
                step()
            except Exception as error:  # whatever a step dies of, the others do not wait for, and the next look may do
                self._counts.route_failures.inc()
                log.warning("cannot look for routes of models in %s: %s", self._store_uri, error)

    def _look(self) -> None:
        try:
            if self._store is None:
                self._store = open_store(self._store_uri)
            store, stored = self._store, RouteStore(self._store).stored()
        except PymkError:
            if not self._seen[0] and (copy := local_copy(self._store_uri)) is not None:
                stored = RouteStore(copy).stored()
                if stored is not None:
                    self._take(copy, RouteStore(copy).parsed(stored).of(self._surface).route)
            raise
        seen = (True, stored.etag if stored else None)
        if seen == self._seen and not self._failed:
            return
        self._take(store, RouteStore(store).parsed(stored).of(self._surface).route)
        if seen != self._seen and stored is not None and store.local_folder(FILE) is None:
            FolderStore(copies_of(self._store_uri)).put(FILE, stored.data)
        self._seen = seen

    def _judge(self) -> None:
        """Takes a canary off that is out of bounds: here, be the store away or not."""
        canary = self._open.canary
        if canary is not None and (why := self._stopped(canary.ref, canary.model.guard)):
            self._off[canary.ref] = why
            del self._models[canary.ref]  # whoever routes to it again counts anew
            self._open = replace(self._open, canary=None, stamp=self._open.stamp + 1)

    def _tell(self) -> None:
        """Takes those that are off here off for everybody."""
        for ref, why in list(self._off.items()):
            take_off(self._store_uri, self._surface, ref, why)
            del self._off[ref]
            self._marks.forget()

    def _stopped(self, ref: ModelRef, guard: Guard | None = None) -> str | None:
        """Why a canary is taken off, logged and counted; None where nothing is against it."""
        why = guard.verdict() if guard else None
        if why is None and str(ref) in self._marks.left():
            why = why_ended()
        if why is not None:
            log.error("canary %s is taken off: %s", ref, why)
            self._counts.canaries_stopped.labels(str(ref)).inc()
        return why

    def _look_for_lists(self) -> None:
        opened = self._open
        named = [one.ref for one in (opened.stable, opened.canary) if one is not None]
        if not named or self._store is None:
            return
        with self._held() as release:
            if release is not None and self._lists.follow(self._store, release, named):
                self._open = replace(opened, stamp=opened.stamp + 1)

    def _take(self, store: ObjectStore, route: Route) -> None:
        """Opens the models of a route and has them rank, all at once."""
        before = self._open
        named = {one for one in (route.stable, route.canary.model if route.canary else None) if one}
        self._off = {ref: why for ref, why in self._off.items() if ref in named}
        canaries = [route.canary.model] if route.canary else []
        self._marks.forget(*(str(ref) for ref in canaries))
        self._off |= {ref: why for ref in canaries if ref not in self._off and (why := self._stopped(ref))}
        wanted = route.canary.model if route.canary and route.canary.model not in self._off else None
        stable, canary = self._model(store, route.stable), self._model(store, wanted)
        lost = stable is None and route.stable is not None
        kept = before.stable if lost else _chosen(STABLE, route.stable, stable)
        new = _chosen(CANARY, wanted, canary)
        if (route, kept, new) == (before.route, before.stable, before.canary):
            return
        self._models = {ref: one for ref, one in self._models.items() if ref in named}
        self._failed = {ref: one for ref, one in self._failed.items() if ref in named}
        quiet = route == Route() and kept is None
        self._open = _NOBODY if quiet and before is _NOBODY else _Open(route, before.stamp + 1, kept, new)
        log.info("%s is ranked by %s, canary %s", self._surface, kept and kept.name, new and new.name)

    def _model(self, store: ObjectStore, ref: ModelRef | None) -> tuple[Guarded, Breaker] | None:
        """None for none, and for one that cannot be opened now."""
        if ref is None or ref in self._models:
            return self._models[ref] if ref else None
        failures, again = self._failed.get(ref, (0, 0.0))
        if failures and self._clock() < again:
            return None
        try:
            model, folder = Registry(store).open(ref.name, ref.version)
            mark = self._marks.of(str(ref)) if self._opened is in_process else NoMark()
            with mark:
                ranks = self._opened(ref, model.spec, folder)
                ranks.timed(defaults_of(model.spec), Deadline.after(OPENED_S))
            guard = Guard(read_golden(folder, model.spec).scores, self._bounds)
            opened = Guarded(ranks, guard, mark)
        except Exception as error:  # whatever a model dies of, others rank
            wait = min(LONGEST_WAIT_S, self._poll_s * 2 ** min(failures, 10))
            self._failed[ref] = (failures + 1, self._clock() + wait)
            self._counts.models_refused.labels(str(ref)).inc()
            log.error("model %s cannot be opened, next try in %.0f s: %s", ref, wait, error)
            return None
        self._failed.pop(ref, None)
        self._models[ref] = (opened, self._breaker(f"model {ref}"))
        return self._models[ref]

    def _follow(self) -> None:
        self.look()
        self._looked.set()
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)  # of this thread: opening models waits for requests
        while not self._stop.wait(self._poll_s):
            self.look()
