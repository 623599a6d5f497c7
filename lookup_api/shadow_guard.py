"""Shadows that end the process which scores by them: told by the marks that it left behind, and scored no more."""

import logging
import time
from collections.abc import Callable

from prometheus_client import Counter

from infra.model_routes import ModelRef, RouteStore, without_shadow
from infra.store import open_store
from lookup_api.model_marks import Mark, Marks, NoMark, marks_of
from lookup_api.taken_off import take_off, why_ended

log = logging.getLogger(__name__)

LOOK_S = 1.0
AGAIN_S = 30.0
"""Until routes that could not be changed are tried again."""
KEPT_S = 60.0
"""For which one that is off its routes is left out here: every worker follows them by then."""


class ShadowGuard:
    """Of shadows that this process scores itself. Used by one thread."""

    def __init__(self, store_uri: str, stopped: Counter, clock: Callable[[], float] = time.monotonic) -> None:
        """stopped: counts those that are taken off by `model`."""
        self._store_uri = store_uri
        self._stopped = stopped
        self._clock = clock
        self._marks = Marks(marks_of(store_uri, "shadows"))
        self._next_s = self._tell_s = clock()
        self._off: dict[str, float | None] = {}  # until when each is left out; None while a route may name it

    def mark(self, model: ModelRef) -> Mark:
        """Around whatever scores by it, or opens it."""
        return self._marks.of(str(model))

    def is_off(self, model: ModelRef) -> bool:
        return str(model) in self._off

    def look(self) -> None:
        """Leaves out shadows that ended a process of this machine, and takes them off for everybody. A store that fails
        is logged, and tried again."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        for model in self._marks.left() - self._off.keys():
            log.error("shadow %s is taken off: %s", model, why_ended())
            self._stopped.labels(model).inc()
            self._off[model] = None
        self._off = {model: until for model, until in self._off.items() if until is None or now_s < until}
        self._marks.forget(*self._off)
        if None in self._off.values() and now_s >= self._tell_s:
            self._tell(now_s)

    def _tell(self, now_s: float) -> None:
        try:
            surfaces = RouteStore(open_store(self._store_uri)).read().surfaces
            for model in [model for model, until in self._off.items() if until is None]:
                ref = ModelRef.parse(model)
                for surface in [name for name, one in surfaces.items() if ref in one.route.shadows]:
                    take_off(self._store_uri, surface, ref, why_ended(), without_shadow)
                self._off[model] = now_s + KEPT_S
        except Exception as error:  # whatever it dies of, they are left out here
            self._tell_s = now_s + AGAIN_S
            log.warning("shadows cannot be taken off, next try in %.0f s: %s", AGAIN_S, error)


class NoGuard(ShadowGuard):
    """Where leaf processes score, which a shadow ends and no worker."""

    def __init__(self) -> None: ...

    def mark(self, model: ModelRef) -> Mark:
        return NoMark()

    def is_off(self, model: ModelRef) -> bool:
        return False

    def look(self) -> None: ...
