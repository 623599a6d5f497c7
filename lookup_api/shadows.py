"""Shadows: models of a route that score unseen what others answered, and are never waited for.

A request puts what was gathered into a bounded queue, once its answer is made, or drops it: where the worker is busy,
long before answers get worse (lookup_api.load), where the queue is full, where enough was stored in this hour. One
thread of low priority scores what waits, between requests where it can, and writes files (lookup_api.shadow_log).
"""

import logging
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infra.blob_batches import Users
from infra.errors import PymkError
from infra.model_routes import LOOKUP, RELEASE, SHADOW, STABLE, ModelRef
from infra.model_spec import ModelSpec
from infra.serving_settings import ShadowSettings
from infra.shadow_files import BUSY, CRASHED, ENDING, FULL, SPENT
from infra.store import open_store
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ladder import Ask, RankedBy
from lookup_api.leaves.protocol import Leaf, LeafBusy
from lookup_api.live_list import LiveList
from lookup_api.load import FULL as ALL_QUALITY
from lookup_api.load import Load
from lookup_api.logs import Sparing
from lookup_api.ranking.scorers import Array, Float32
from lookup_api.root.catalog import Named
from lookup_api.root.gathered import Gathered
from lookup_api.root.root_metrics import ANSWERED, FAILED, LATE
from lookup_api.root.scoring import Scored
from lookup_api.routed_models import RoutedModels
from lookup_api.shadow_guard import ShadowGuard
from lookup_api.shadow_metrics import ShadowMetrics

if TYPE_CHECKING:
    from lookup_api.shadow_log import Row, ShadowLog

log = logging.getLogger(__name__)

NICENESS = 19
LINGER_S = 0.02
"""From the first request that waits until the first is scored: its answer is out by then."""
PATIENCE_S, MOMENT_S = 0.05, 0.001
"""For how long a shadow lets the requests that the worker has in hand go first, and how often it looks."""
TIME_S = 10.0
"""That a model may take for a request, be it to be opened for it."""
CALM_S = 2.0
"""For which a worker that was busy is left alone."""
LOOK_S = 1.0
ENDING_S = 5.0
"""For which a worker that ends waits for its last file."""
_NOBODY = Users(np.zeros(0, np.bool_), np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32), 0, ())


@dataclass(frozen=True, slots=True)
class By:
    """Who answered: a model, `name@version` or `release`, which variant that is, in what time, and its scores float32
    [n]."""

    model: str
    variant: str
    release_id: str
    ms: float
    scores: Float32


@dataclass(frozen=True, slots=True)
class _Waiting:
    surface: str
    at_us: int
    shadows: tuple[ModelRef, ...]
    gathered: Gathered
    by: By


class Shadows:
    """Safe to use from any thread. Its own thread starts with the first request that a shadow is to score.

    load: of the worker; None where nobody tells. is_ending: whether the server was told to stop.
    """

    def __init__(
        self,
        store_uri: str,
        settings: ShadowSettings,
        leaf: Leaf,
        spec: Callable[[ModelRef, Deadline], ModelSpec],
        counts: ShadowMetrics,
        guard: ShadowGuard | None = None,
    ) -> None:
        """leaf: nobody waits for its turn there but shadows. spec: of a version; raises PymkError. guard: None where
        leaf processes score, which a shadow ends and no worker."""
        self._store_uri = store_uri
        self._settings = settings
        self._leaf = leaf
        self._spec = spec
        self._counts = counts
        self._guard = guard
        self.load: Load | None = None
        self.is_ending: Callable[[], bool] = lambda: False
        self._waiting: deque[_Waiting] = deque()
        self._dropped: Counter[tuple[str, str, str]] = Counter()
        self._spent = self._ends = False
        self._calm_s = 0.0
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._sparing = Sparing(log)

    def offer(
        self, surface: str, shadows: tuple[ModelRef, ...], gathered: Gathered, by: By, level: int = ALL_QUALITY
    ) -> None:
        """Has shadows score what was answered, some time or never; returns at once. level: see lookup_api.load."""
        if self._settings.share < 1 and random.random() >= self._settings.share:
            return
        why = self._why_not(level)
        if why is not None:
            self._drop(surface, shadows, why)
            return
        self._waiting.append(_Waiting(surface, time.time_ns() // 1000, shadows, _light(gathered), by))
        if self._thread is None:
            self._start()
        self._wake.set()

    def follow(
        self,
        named: Sequence[Named | Scored],
        scored: Sequence[Scored],
        gathered: Gathered,
        release_id: str,
        level: int,
    ) -> None:
        """The same of every surface among the names that a request asked for. scored: in their order."""
        for name, one in zip(named, scored, strict=True):
            if isinstance(name, Named) and name.shadows and one.scores is not None:
                by = By(one.model, name.variant, release_id, one.ms, one.scores)
                self.offer(name.asked, name.shadows, gathered, by, level)

    def stop(self) -> None:
        """Scores what waits and stores it, unless that takes long."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(ENDING_S)
        self._leaf.close()

    def step(self, files: "ShadowLog") -> None:
        """Scores what waits, but for what comes meanwhile, and stores files that are old enough. Where the server is to
        end it scores nothing, and stores all of them."""
        self._look(files)
        for _ in range(len(self._waiting)):
            one = self._waiting.popleft()
            if why := self._why_dropped():
                self._drop(one.surface, one.shadows, why)
                continue
            self._let_requests_go_first()
            if rows := self._rows(one):
                files.add(one.surface, one.at_us, rows)
            self._look(files)
        with self._lock:
            dropped, self._dropped = self._dropped, Counter()
        for (surface, model, why), number in dropped.items():
            files.dropped(surface, model, why, number)
        files.roll(all_of_them=self._ends)
        self._look(files)

    def _look(self, files: "ShadowLog") -> None:
        """Whether the server is to end, whether more may be stored, and which shadows are not to be scored."""
        if self._guard:
            self._guard.look()
        self._ends, self._spent = self.is_ending(), not files.has_room

    def _why_dropped(self) -> str | None:
        """Why a request that waits is dropped; None where it is not."""
        if self._ends:
            return ENDING
        if self._spent:
            return SPENT
        return BUSY if self._is_busy() else None

    def _why_not(self, level: int) -> str | None:
        """Why a request is dropped; None where it is not."""
        if self._ends:
            return ENDING
        if level != ALL_QUALITY or self._is_busy():
            return BUSY
        if self._spent:
            return SPENT
        return FULL if len(self._waiting) >= self._settings.queue else None

    def _is_busy(self) -> bool:
        """Whether the worker is, or was a moment ago: too much comes in waves, as some of it is turned away."""
        load, now = self.load, time.monotonic()
        if load is not None and load.in_hand and load.share >= self._settings.drop_at:
            self._calm_s = now + CALM_S
        return now < self._calm_s

    def _drop(self, surface: str, shadows: Sequence[ModelRef], why: str) -> None:
        with self._lock:
            for ref in shadows:
                self._dropped[surface, str(ref), why] += 1
        for ref in shadows:
            self._counts.asked(str(ref), why)
        if self._thread is None:
            self._start()

    def _let_requests_go_first(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.load is not None and self.load.in_hand and time.monotonic() < until:
            time.sleep(MOMENT_S)

    def _rows(self, one: _Waiting) -> "list[Row]":
        """Of who answered, and of each shadow that was scored or failed; none where all were dropped."""
        from lookup_api.shadow_log import Row

        by = one.by
        name, _, version = by.model.partition("@")
        answered = Row(name, version or by.release_id, by.variant, ANSWERED, by.ms, by.scores)
        scored = [row for ref in one.shadows if (row := self._scored(one.surface, ref, one.gathered))]
        return [answered, *scored] if scored else []

    def _scored(self, surface: str, ref: ModelRef, gathered: Gathered) -> "Row | None":
        """None where it was dropped, as its leaf scores for others, or a worker ended while it scored."""
        from lookup_api.shadow_log import Row

        if self._guard and self._guard.is_off(ref):
            self._drop(surface, (ref,), CRASHED)
            return None
        name, scores, outcome = str(ref), None, ANSWERED
        inputs: dict[str, Array] = {}
        start = time.perf_counter()
        try:
            deadline = Deadline.after(TIME_S)
            spec = self._spec(ref, deadline)
            if spec.unit != "row":
                raise PymkError("scores lists, of which nobody is shadowed")
            inputs, _ = gathered.columns_of(spec)
            with self._guard.mark(ref) if self._guard else nullcontext():
                scores = self._leaf.score(ref, gathered.with_others(inputs, spec), deadline)
            if scores.shape != (len(gathered),) or not np.isfinite(scores).all():
                raise PymkError(f"scores {list(scores.shape)} of {len(gathered)} people, or some that are not finite")
        except LeafBusy:
            self._drop(surface, (ref,), BUSY)
            return None
        except Exception as error:  # whatever a model dies of, nobody waits for it
            scores, outcome = None, LATE if isinstance(error, TooLate) else FAILED
            self._sparing.warning("a shadow gave no scores", model=name, why=outcome, error=str(error))
        seconds = time.perf_counter() - start
        self._counts.asked(name, outcome)
        if outcome == ANSWERED:
            self._counts.seconds.labels(name).observe(seconds)
        kept = {one: np.array(column, np.float32) for one, column in inputs.items()}  # of its own, not of all columns
        return Row(ref.name, ref.version, SHADOW, outcome, seconds * 1e3, scores, kept)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # of this thread
        files = self._files()
        while not self._stop.is_set():
            self._wake.wait(min(LOOK_S, self._settings.file_s))
            self._wake.clear()
            self._stop.wait(LINGER_S)
            self._tried(files)
        self._tried(files)
        files.roll(all_of_them=True)

    def _tried(self, files: "ShadowLog") -> None:
        try:
            self.step(files)
        except Exception as error:  # whatever a step dies of, the next one may do
            log.error("shadows could not be scored: %s", error, exc_info=error)

    def _files(self) -> "ShadowLog":
        from lookup_api.shadow_log import ShadowLog

        own = self._settings
        files = ShadowLog(lambda: open_store(self._store_uri, writable=True), own.file_s, own.mib_per_hour << 20)
        files.stored = lambda requests, size: self._counts.stored_bytes.inc(size)
        files.lost = self._counts.lost.inc
        return files


@dataclass(frozen=True)
class LookupShadows:
    """Shadows of lists that the lookup ranks live."""

    shadows: Shadows
    models: RoutedModels

    def __call__(self, ask: Ask, made: LiveList, by: RankedBy | None) -> None:
        refs = self.models.route.shadows
        if not refs or made.gathered is None or made.scores is None or ask.query.explain:
            return
        model, variant = by or (RELEASE, STABLE)
        answered = By(model, variant, ask.release.release_id, made.scored_ms, made.scores)
        self.shadows.offer(LOOKUP, refs, made.gathered, answered, ask.level)


def _light(gathered: Gathered) -> Gathered:
    """The same, without what was read to gather it, which is large."""
    made = copy(gathered)
    vars(made)["users"] = _NOBODY
    return made
