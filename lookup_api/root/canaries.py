"""Canaries of the surfaces that callers of /v1/score name: what each does to their requests is counted, and one that is
out of bounds is taken off, by this worker at once and then for everybody. That of the lookup has RoutedModels."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from prometheus_client import Counter

from infra.model_golden import read_golden
from infra.model_routes import LOOKUP, ModelRef, Routes
from infra.models import Registry
from infra.store import open_store
from lookup_api.canary_guard import Bounds, Guard
from lookup_api.deadline import TooLate
from lookup_api.model_marks import Mark, Marks, NoMark, marks_of
from lookup_api.ranking.scorers import Float32
from lookup_api.root.asked_models import ModelFailed
from lookup_api.taken_off import take_off, why_ended

log = logging.getLogger(__name__)

AGAIN_S = 30.0
"""Until one that could not be opened is tried again."""

Place = tuple[str, ModelRef]
"""A surface and its canary."""


@dataclass(frozen=True, slots=True)
class Watched:
    """changed_at: of the surface's route. mark: tells other processes where this one ends. is_timed: whether its times
    count, as they do where somebody waits; else others go first."""

    changed_at: str
    guard: Guard
    mark: Mark
    is_timed: bool = True

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Around a request; notes whatever it dies of."""
        try:
            with self.mark:
                yield
        except TooLate:  # before the model was asked
            raise
        except ModelFailed as error:
            if self.is_timed or not isinstance(error.__cause__, TooLate):
                self.guard.failed_by(error.__cause__)
            raise

    def scored(self, ms: float, scores: Float32) -> None:
        self.guard.scored(ms if self.is_timed else 0.0, scores)


class Canaries:
    """Asked from any thread, looked after by one."""

    def __init__(
        self, store_uri: str, bounds: Bounds, stopped: Counter, opened: Callable[[ModelRef], object] | None = None
    ) -> None:
        """stopped: counts by `model`. opened: has this process open a model, where it scores itself: a model that ends
        it does so then, with its mark. None where leaves score, which tell of models that end them."""
        self._store_uri = store_uri
        self._bounds = bounds
        self._stopped = stopped
        self._opened = opened
        self._marks = Marks(marks_of(store_uri, "surfaces"))
        self._watched: dict[Place, Watched] = {}
        self._off: dict[Place, str] = {}
        self._again_s: dict[Place, float] = {}

    def watched(self, surface: str, model: ModelRef) -> Watched | None:
        """Who counts what the surface's canary does; None of what is none."""
        return self._watched.get((surface, model))

    def is_off(self, surface: str, model: ModelRef) -> bool:
        """Whether the surface has its stable model for everybody, whatever its route says: the canary was taken off, or
        could end this process and is not watched yet."""
        place = (surface, model)
        return place in self._off or (self._opened is not None and surface != LOOKUP and place not in self._watched)

    def look(self, routes: Routes) -> bool:
        """Takes off canaries of these routes that are out of bounds, and watches the others; whether the routes were
        changed for it, and are to be read again before `changed`. Raises what the store may, once it has looked at all,
        and then tries again next time."""
        places = _places(routes)
        self._off = {place: why for place, why in self._off.items() if place in places}
        self._watched = {p: one for p, one in self._watched.items() if places.get(p) == one.changed_at}
        self._marks.forget(*{str(model) for _, model in places})
        left = self._marks.left()
        for place in places:
            watched = self._watched.get(place)
            if str(place[1]) in left:
                self._take_off(place, why_ended())
            elif watched is not None and (why := watched.guard.verdict()):
                self._take_off(place, why)
        for place, changed_at in places.items():
            if place not in self._off and place not in self._watched:
                self._watch(place, changed_at)
        self._tell()
        return bool(self._off)

    def changed(self) -> None:
        """The routes without those that were taken off are followed: who routes to one again counts anew."""
        self._watched = {place: one for place, one in self._watched.items() if place not in self._off}
        self._off = {}
        self._marks.forget(*{str(model) for _, model in self._watched})

    def _tell(self) -> None:
        """Takes those that are off here off for everybody. Raises one of the failures, once all were tried."""
        failed: Exception | None = None
        for (surface, model), why in self._off.items():
            try:
                take_off(self._store_uri, surface, model, why)
            except Exception as error:  # whatever one dies of, the others are told all the same
                failed = error
        if failed is not None:
            raise failed

    def _watch(self, place: Place, changed_at: str) -> None:
        _, model = place
        if time.monotonic() < self._again_s.get(place, 0.0):
            return
        try:
            version, folder = Registry(open_store(self._store_uri)).open(model.name, model.version)
            golden = read_golden(folder, version.spec).scores
            # Scores of a list depend on who else is on it, and so are like no others.
            guard = Guard(golden if version.spec.unit == "row" else np.zeros(1, np.float32), self._bounds)
            mark: Mark = NoMark()
            if self._opened is not None:
                mark = self._marks.of(str(model))
                with mark:
                    self._opened(model)
        except Exception as error:  # whatever a model dies of, others are looked after
            self._again_s[place] = time.monotonic() + AGAIN_S
            log.warning("canary %s of %s cannot be watched, next try in %.0f s: %s", model, place[0], AGAIN_S, error)
            return
        self._watched = self._watched | {place: Watched(changed_at, guard, mark)}

    def _take_off(self, place: Place, why: str) -> None:
        if place in self._off:
            return
        surface, model = place
        log.error("canary %s of %s is taken off: %s", model, surface, why)
        self._stopped.labels(str(model)).inc()
        self._off = self._off | {place: why}


def _places(routes: Routes) -> dict[Place, str]:
    """With when each surface's route was changed."""
    return {
        (name, one.route.canary.model): one.changed_at
        for name, one in routes.surfaces.items()
        if one.route.canary and name != LOOKUP
    }
