"""Shadows that a process had in hand when it ended without a word: left out on this machine for a while, and for longer
each time. The mark does not tell whether it was the shadow that ended it, so routes stay as they are."""

import logging
import random
import time
from collections.abc import Callable

from prometheus_client import Counter

from infra.model_routes import ModelRef
from lookup_api.model_marks import Mark, Marks, marks_of
from lookup_api.taken_off import why_ended

log = logging.getLogger(__name__)

LOOK_S = 1.0
FIRST_S, LONGEST_S = 60.0, 1800.0
"""For which one is left out, or up to twice as long; doubles with every process that ended."""
KEPT_S = 86_400.0
"""For which such an end counts."""


class ShadowGuard:
    """Of shadows that this process scores itself. Used by one thread."""

    def __init__(self, store_uri: str, stopped: Counter, clock: Callable[[], float] = time.time) -> None:
        """stopped: counts those that are left out by `model`. clock: of all processes of the machine."""
        folder = marks_of(store_uri, "shadows")
        self._marks = Marks(folder)
        self._ends = folder / "ends"  # an empty file for each, `time name@version`
        self._stopped = stopped
        self._clock = clock
        self._share = 1 + random.random()  # so that of several processes one tries first
        self._next_s = 0.0
        self._until_s: dict[str, float] = {}

    def mark(self, model: ModelRef) -> Mark:
        """Around whatever scores by it, or opens it."""
        return self._marks.of(str(model))

    def is_off(self, model: ModelRef) -> bool:
        return self._clock() < self._until_s.get(str(model), 0.0)

    def look(self) -> None:
        """Looks for processes of this machine that ended."""
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + LOOK_S
        for model in self._marks.taken():
            self._ends.mkdir(exist_ok=True)
            (self._ends / f"{now_s:.3f} {model}").touch()
            self._stopped.labels(model).inc()
            log.error("shadow %s is left out for a while: %s", model, why_ended())
        ends: dict[str, list[float]] = {}
        for path in self._ends.iterdir() if self._ends.is_dir() else ():
            at, _, model = path.name.partition(" ")
            if now_s - float(at) > KEPT_S:
                path.unlink(missing_ok=True)
            else:
                ends.setdefault(model, []).append(float(at))
        waits = {model: min(LONGEST_S, FIRST_S * 2 ** (len(found) - 1)) for model, found in ends.items()}
        self._until_s = {model: max(ends[model]) + wait * self._share for model, wait in waits.items()}
