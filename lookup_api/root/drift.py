"""How far what models are given, and what they say, has moved from where they learnt (infra.model_reference).

Of one in so many requests some rows are counted, between the edges of the model's reference, by a thread of its own and
of low priority: a request only hands over what it has. Where the thread is behind, requests are not counted.
"""

import logging
import os
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import PymkError
from infra.model_reference import Histogram, Reference, bounds_of, counted
from infra.model_routes import ModelRef
from infra.settings import ModelSettings
from lookup_api.ranking.scorers import Array, Float32
from lookup_api.ranking.stability import stability_indexes
from lookup_api.release_watch import FOLLOWER_NICENESS
from lookup_api.root.asked_models import ScoresGathered
from lookup_api.root.gathered import VIEWER_PREFIX, Gathered
from lookup_api.root.references import References
from lookup_api.root.root_metrics import RootMetrics

log = logging.getLogger(__name__)

MOST_ROWS = 256
"""Of a request that are counted, spread evenly."""
MOST_WAITING = 32
MOST_MODELS = 64
"""Models that are counted in a worker: each takes a gauge an input."""
IDLE_S = 600.0
"""Without a counted request, after which a model gives its place to another."""
MOST_NAMES = 4096
"""Models without a reference that are remembered."""
LEAST = 50
"""Counted requests from which drift is told: fewer viewers than that are like nobody else."""
RETRY_S = 60.0
"""Until a reference that could not be read is tried again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """columns: what the model was given, by name, [n]. scores float32 [n]."""

    model: str
    columns: Mapping[str, Array]
    scores: Float32


class Window:
    """Counts of one model beside its reference, of the last `size` requests, or half of them or more."""

    def __init__(self, reference: Reference, size: int) -> None:
        names = [*reference.inputs]
        found: list[Histogram] = [*reference.inputs.values(), reference.scores]
        self.inputs = tuple(names)
        self._bounds = [bounds_of(np.array(one.edges)) for one in found]
        width = max(len(one.counts) for one in found)
        self._learnt = np.array([_padded(one.counts, width) for one in found])
        self._now, self._before = np.zeros_like(self._learnt), np.zeros_like(self._learnt)
        self._requests = [0, 0]
        self._half = max(size // 2, 1)

    @property
    def requests(self) -> int:
        return sum(self._requests)

    def add(self, columns: Mapping[str, Array], scores: Float32) -> None:
        """Counts one request. What is the viewer's is the same in all rows of a request, and counts once."""
        if self._requests[0] >= self._half:
            self._before, self._now = self._now, np.zeros_like(self._now)
            self._requests = [0, self._requests[0]]
        step = max(-(-len(scores) // MOST_ROWS), 1)
        for place, (name, bounds) in enumerate(zip((*self.inputs, None), self._bounds, strict=True)):
            values = scores[::step] if name is None else columns.get(name)
            if values is None:
                continue
            if name is not None:
                values = values[:1] if name.startswith(VIEWER_PREFIX) else values[::step]
            self._now[place, : len(bounds) + 1] += counted(bounds, values)
        self._requests[0] += 1

    def drift(self) -> npt.NDArray[np.float64]:
        """Stability index of each input, and last of the scores, float64 [inputs + 1]."""
        return stability_indexes(self._now + self._before, self._learnt)


@dataclass(slots=True)
class _Counted:
    """at_s: of the last request."""

    version: ModelRef
    window: Window
    at_s: float


class Drift:
    """Safe to use from any thread. Until `start` nothing is counted."""

    def __init__(
        self,
        settings: ModelSettings,
        counts: RootMetrics,
        references: References,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """draw: a number in [0, 1), by which requests are chosen: another one each time."""
        self._share = 1 / settings.drift_every if settings.drift_every else 0.0
        self._window = settings.drift_window
        self._counts = counts
        self._references = references
        self._draw = draw
        self._clock = clock
        self._known: OrderedDict[str, _Counted] = OrderedDict()  # the one that was idle longest first
        self._without: dict[str, ModelRef] = {}
        self._again: dict[str, float] = {}
        self._waiting: SimpleQueue[Sample | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._follow, name="drift", daemon=True)

    def saw(self, model: ScoresGathered, gathered: Gathered, scores: Float32) -> None:
        """Notes a request that was scored, if it is one of those that are counted."""
        if self._draw() < self._share and self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(Sample(model.name, model.given(gathered), scores))

    def start(self) -> None:
        if self._share:
            self._counts.saw = self.saw
            self._thread.start()

    def stop(self) -> None:
        """Without waiting for a store that hangs."""
        self._waiting.put(None)
        if self._thread.is_alive():
            self._thread.join(1.0)

    def count(self, sample: Sample) -> None:
        """Counts a request, and tells how far its model's have moved, once there are enough of them."""
        window = self._window_of(sample.model)
        if window is None:
            return
        window.add(sample.columns, sample.scores)
        self._counts.drift_requests.labels(sample.model).inc()
        if window.requests >= LEAST:
            *inputs, scores = window.drift().tolist()
            self._counts.score_drift.labels(sample.model).set(scores)
            for name, found in zip(window.inputs, inputs, strict=True):
                self._counts.input_drift.labels(sample.model, name).set(found)

    def _window_of(self, model: str) -> Window | None:
        """None where the model has no reference, or it cannot be read now, or enough others are counted."""
        known, now = self._known.get(model), self._clock()
        if (known is None and not self._has_room(now)) or now < self._again.get(model, 0.0):
            return None
        try:
            version = self._references.version(model)
            if self._without.get(model) == version:
                return None
            if known is None or known.version != version:
                reference = self._references.read(version)
                if reference is None:
                    self._is_without(model, version)
                    return None
                known = self._known[model] = _Counted(version, Window(reference, self._window), now)
        except PymkError as error:
            if model not in self._again:
                log.warning("where %s learnt cannot be read, it is tried each minute: %s", model, error)
            self._again[model] = now + RETRY_S
            return None
        known.at_s = now
        self._known.move_to_end(model)
        while len(self._known) > MOST_MODELS:
            self._tell_nothing(*self._known.popitem(last=False))
        return known.window

    def _has_room(self, now: float) -> bool:
        """Whether another model may be counted."""
        return len(self._known) < MOST_MODELS or now - next(iter(self._known.values())).at_s >= IDLE_S

    def _is_without(self, model: str, version: ModelRef) -> None:
        """Notes a version that has no reference."""
        if len(self._without) >= MOST_NAMES:
            self._without = {}
        self._without[model] = version
        if (counted := self._known.pop(model, None)) is not None:
            self._tell_nothing(model, counted)

    def _tell_nothing(self, model: str, counted: _Counted) -> None:
        """Of a model that is counted no more: 0, as of all workers the largest is told."""
        self._counts.score_drift.labels(model).set(0.0)
        for name in counted.window.inputs:
            self._counts.input_drift.labels(model, name).set(0.0)

    def _follow(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)  # of this thread: requests come first
        while (sample := self._waiting.get()) is not None:
            try:
                self.count(sample)
            except Exception as error:  # whatever counting dies of, the next request may be counted
                log.warning("a request to %s is not counted for drift: %s", sample.model, error)


def _padded(counts: tuple[int, ...], width: int) -> npt.NDArray[np.int64]:
    out: npt.NDArray[Any] = np.zeros(width, np.int64)
    out[: len(counts)] = counts
    return out
