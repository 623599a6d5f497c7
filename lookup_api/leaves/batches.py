"""Whose turn it is to score: as many calls at once as there are math threads, and whoever waits for one model waits
together.

Requests that come for a model of rows while its turn has not come are scored in one call, so that nothing is waited for
on purpose: one that finds a thread free is scored at once, alone.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from lookup_api.deadline import Deadline
from lookup_api.leaves.columns import Inputs, count_of, part_of, together
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.protocol import LeafBusy, TurnLate
from lookup_api.leaves.residents import Resident
from lookup_api.ranking.scorers import Float32


class _Member:
    """A request that waits. woken: released when it has its scores, or is to score its batch, which it has then."""

    __slots__ = ("batch", "error", "gone", "inputs", "rows", "scores", "woken")

    def __init__(self, inputs: Inputs, rows: int) -> None:
        self.inputs, self.rows = inputs, rows
        self.scores: Float32 | None = None
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


class Batches:
    """Safe to use from any thread."""

    def __init__(self, threads: int, most_waiting: int, counts: HostMetrics) -> None:
        """threads: calls of models at once. most_waiting: requests, beyond which more are refused."""
        self._free = threads
        self._most_waiting = most_waiting
        self._counts = counts
        self._waiting = 0
        self._queue: deque[_Batch] = deque()
        self._last: dict[int, _Batch] = {}
        self._lock = threading.Lock()

    def score(self, resident: Resident, inputs: Inputs, deadline: Deadline) -> Float32:
        """Raises TurnLate where its turn does not come in time, LeafBusy where too many wait, whatever the model
        raises otherwise."""
        deadline.check(f"{resident.ref}")
        with self._lock:
            waits = self._free == 0
            if not waits:
                self._free -= 1
            else:
                member = self._joined(resident, inputs)
        if waits:
            return self._awaited(resident, member, deadline)
        try:
            self._counts.together.observe(1)
            return called(resident, inputs)
        finally:
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

    def _awaited(self, resident: Resident, member: _Member, deadline: Deadline) -> Float32:
        if not member.woken.acquire(timeout=max(0.0, deadline.left_s)):
            with self._lock:
                if member.batch is None and member.scores is None and member.error is None:
                    member.gone = True
                    raise TurnLate(f"{resident.ref}: its turn to score did not come in time")
        if member.batch is not None:
            self._score_batch(resident, member.batch.members)
        if member.error is not None:
            raise member.error
        assert member.scores is not None
        return member.scores

    def _pass_on(self) -> None:
        """Wakes the first who waits still, to score for all of its batch; or leaves a thread free."""
        with self._lock:
            while self._queue:
                batch = self._queue.popleft()
                if self._last.get(id(batch.resident)) is batch:
                    del self._last[id(batch.resident)]
                self._waiting -= len(batch.members)
                batch.members = [one for one in batch.members if not one.gone]
                if batch.members:
                    batch.members[0].batch = batch
                    batch.members[0].woken.release()
                    return
            self._free += 1

    def _score_batch(self, resident: Resident, members: list[_Member]) -> None:
        """Scores a batch, and one by one where that fails, so that nobody fails for another's columns."""
        self._counts.together.observe(len(members))
        try:
            try:
                scores = called(resident, together([one.inputs for one in members]))
                ends = np.cumsum([one.rows for one in members])
                for member, start, end in zip(members, [0, *ends[:-1]], ends, strict=True):
                    member.scores = scores[start:end]
            except Exception as error:
                for member in members:
                    _score_alone(resident, member, error if len(members) == 1 else None)
        finally:
            self._pass_on()
            for member in members[1:]:
                member.woken.release()


def called(resident: Resident, inputs: Inputs) -> Float32:
    """Scores, by calls of no more rows than the model takes."""
    most, rows = resident.spec.resources.max_rows, count_of(inputs)
    if rows <= most or resident.spec.unit != "row":
        return resident.scorer.score(inputs)
    parts = [part_of(inputs, slice(start, start + most)) for start in range(0, rows, most)]
    return np.concatenate([resident.scorer.score(part) for part in parts])


def _score_alone(resident: Resident, member: _Member, error: Exception | None) -> None:
    """error: what its batch failed of, where that was of this member alone."""
    try:
        if error is not None:
            raise error
        member.scores = called(resident, member.inputs)
    except Exception as failed:
        member.error = failed
