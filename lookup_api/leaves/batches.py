"""Whose turn it is to score: as many calls at once as there are math threads, and whoever waits for one model waits
together.

A call that runs for longer than any may has its turn given to others, and its model is left alone.

Requests that come for a model of rows while its turn has not come are scored in one call, so that nothing is waited for
on purpose: one that finds a thread free is scored at once, alone.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline
from lookup_api.leaves.columns import Inputs, count_of, part_of, together
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.protocol import LeafBusy, ModelHangs, Timed, TurnLate
from lookup_api.leaves.residents import Resident
from lookup_api.ranking.scorers import Float32

log = logging.getLogger(__name__)


class _Member:
    """A request that waits. woken: released when it has its scores, or is to score its batch, which it has then."""

    __slots__ = ("batch", "error", "gone", "inputs", "rows", "timed", "woken")

    def __init__(self, inputs: Inputs, rows: int) -> None:
        self.inputs, self.rows = inputs, rows
        self.timed: Timed | None = None
        self.error: Exception | None = None
        self.batch: _Batch | None = None
        self.gone = False
        self.woken = threading.Lock()
        self.woken.acquire()


@dataclass(slots=True)
class _Batch:
    """Requests to one model that are scored in one call."""

    resident: Resident
    members: list[_Member] = field(default_factory=list)
    rows: int = 0


@dataclass(slots=True, eq=False)
class _Call:
    """One that runs. hangs: for longer than any may."""

    resident: Resident
    since_s: float
    hangs: bool = False


class Batches:
    """Safe to use from any thread."""

    def __init__(
        self,
        threads: int,
        most_waiting: int,
        longest_s: float,
        counts: HostMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """threads: calls of models at once. most_waiting: requests, beyond which more are refused. longest_s: that a
        call may run."""
        self._threads = self._free = threads
        self._most_waiting = most_waiting
        self._longest_s = longest_s
        self._counts = counts
        self._clock = clock
        self._running: list[_Call] = []
        self._waiting = 0
        self._queue: deque[_Batch] = deque()
        self._last: dict[int, _Batch] = {}
        self._lock = threading.Lock()

    def score(self, resident: Resident, inputs: Inputs, deadline: Deadline, spare: bool = False) -> Timed:
        """spare: only where nobody else is scored. Raises TurnLate where its turn does not come in time, LeafBusy where
        too many wait, ModelHangs where the model is found to hang meanwhile, whatever the model raises otherwise."""
        if deadline.left_s <= 0:
            raise TurnLate(f"{resident.ref}: no time was left to score")
        with self._lock:
            if spare and self._free < self._threads:
                raise LeafBusy(f"{resident.ref}: others are scored")
            waits = self._free == 0
            if not waits:
                self._free -= 1
            else:
                member = self._joined(resident, inputs)
        if waits:
            return self._awaited(resident, member, deadline)
        with self._turn(resident):
            self._counts.together.observe(1)
            return _timed(resident, inputs)

    def hanging(self) -> set[ModelRef]:
        """Models of which a call runs for longer than any may. Whoever looks first gives its turn to others, and opens
        the model's breaker."""
        if not self._running:
            return set()
        now_s = self._clock()
        with self._lock:
            found = [call for call in self._running if not call.hangs and now_s - call.since_s > self._longest_s]
            for call in found:
                call.hangs = True
            hanging = self._hanging()
        for call in found:
            log.error("%s: a call runs for over %.1f s, it is left alone", call.resident.ref, self._longest_s)
            call.resident.breaker.trip()
            self._pass_on()
        return hanging

    def _hanging(self) -> set[ModelRef]:
        return {call.resident.ref for call in self._running if call.hangs}

    @contextmanager
    def _turn(self, resident: Resident) -> Iterator[None]:
        """A thread that was free, until the next has it."""
        call = _Call(resident, self._clock())
        with self._lock:
            self._running.append(call)
        try:
            yield
        finally:
            with self._lock:
                self._running.remove(call)
            if not call.hangs:
                self._pass_on()

    def _joined(self, resident: Resident, inputs: Inputs) -> _Member:
        """Waits with the last batch of the model, if there is room in it, or in one of its own."""
        if self._waiting >= self._most_waiting:
            raise LeafBusy(f"{resident.ref}: {self._waiting} requests wait to be scored")
        member = _Member(inputs, count_of(inputs))
        batch = self._last.get(id(resident))
        if batch is None or batch.rows + member.rows > resident.spec.resources.max_rows:
            batch = _Batch(resident)
            self._queue.append(batch)
            if resident.spec.unit == "row":
                self._last[id(resident)] = batch
        batch.members.append(member)
        batch.rows += member.rows
        self._waiting += 1
        return member

    def _awaited(self, resident: Resident, member: _Member, deadline: Deadline) -> Timed:
        if not member.woken.acquire(timeout=max(0.0, deadline.left_s)):
            with self._lock:
                if member.batch is None and member.timed is None and member.error is None:
                    member.gone = True
                    raise TurnLate(f"{resident.ref}: its turn to score did not come in time")
        if member.batch is not None:
            self._score_batch(resident, member.batch.members)
        if member.error is not None:
            raise member.error
        assert member.timed is not None
        return member.timed

    def _pass_on(self) -> None:
        """Wakes the first who waits still, to score for all of its batch; or leaves a thread free."""
        with self._lock:
            while self._queue:
                batch = self._queue.popleft()
                if self._last.get(id(batch.resident)) is batch:
                    del self._last[id(batch.resident)]
                self._waiting -= len(batch.members)
                batch.members = [one for one in batch.members if not one.gone]
                if batch.resident.ref in self._hanging():
                    for one in batch.members:
                        one.error = ModelHangs(f"{batch.resident.ref}: hangs")
                        one.woken.release()
                    continue
                if batch.members:
                    batch.members[0].batch = batch
                    batch.members[0].woken.release()
                    return
            self._free += 1

    def _score_batch(self, resident: Resident, members: list[_Member]) -> None:
        """Scores a batch, and one by one where that fails, so that nobody fails for another's columns."""
        self._counts.together.observe(len(members))
        try:
            with self._turn(resident):
                try:
                    scores, ms = _timed(resident, together([one.inputs for one in members]))
                    ends = np.cumsum([one.rows for one in members])
                    for member, start, end in zip(members, [0, *ends[:-1]], ends, strict=True):
                        member.timed = Timed(scores[start:end], ms)
                except Exception as error:
                    for member in members:
                        _score_alone(resident, member, error if len(members) == 1 else None)
        finally:
            for member in members[1:]:
                member.woken.release()


def called(resident: Resident, inputs: Inputs) -> Float32:
    """Scores, by calls of no more rows than the model takes."""
    most, rows = resident.spec.resources.max_rows, count_of(inputs)
    if rows <= most or resident.spec.unit != "row":
        return resident.scorer.score(inputs)
    parts = [part_of(inputs, slice(start, start + most)) for start in range(0, rows, most)]
    return np.concatenate([resident.scorer.score(part) for part in parts])


def _timed(resident: Resident, inputs: Inputs) -> Timed:
    start = time.perf_counter()
    scores = called(resident, inputs)
    return Timed(scores, (time.perf_counter() - start) * 1e3)


def _score_alone(resident: Resident, member: _Member, error: Exception | None) -> None:
    """error: what its batch failed of, where that was of this member alone."""
    try:
        if error is not None:
            raise error
        member.timed = _timed(resident, member.inputs)
    except Exception as failed:
        member.error = failed
