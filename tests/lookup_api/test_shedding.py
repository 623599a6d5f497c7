"""When requests are turned away: only where so many could wait that it would be too long, and only until a pause."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from lookup_api.shedding import Queue, ThreadTimes, clock_of, worked_s

SERVICE_S, SHED_S, HANDOVER_S = 0.0002, 0.000015, 0.000012
"""What an answer, a refusal and taking the next request cost the simulated worker."""
PEAK = 1 / (SERVICE_S + HANDOVER_S)


@dataclass
class Worker:
    """One thread with a queue in front, as the server has it: nothing of the queue is told to the code in question."""

    connections: int
    wait_s: float = 0.05
    now: float = 0.0
    answered: int = 0
    refused: int = 0
    longest_wait_s: float = 0.0
    worked_s: float = 0.0
    moved_s: float = 0.0
    waiting: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.queue = Queue(
            self.wait_s, 1, lambda: self.now, lambda: self.connections, lambda: (self.worked_s, self.moved_s)
        )

    def run(self, per_s: float, seconds: float) -> None:
        """Requests arrive by chance; one that finds all connections taken is dropped by its sender."""
        draw = np.random.default_rng(17)
        arrivals = self.now + np.cumsum(draw.exponential(1 / per_s, int(per_s * seconds)))
        for arrival in arrivals.tolist():
            while self.waiting and self.now < arrival:
                self.serve(self.waiting.popleft())
            self.now = max(self.now, arrival)
            if len(self.waiting) < self.connections:
                self.waiting.append(arrival)

    def serve(self, arrived: float) -> None:
        self._work(HANDOVER_S)
        if self.queue.enter():
            self.longest_wait_s = max(self.longest_wait_s, self.now - arrived)
            self._work(SERVICE_S)
            self.queue.leave()
            self.answered += 1
        else:
            self._work(SHED_S)
            self.refused += 1

    def _work(self, seconds: float) -> None:
        self.now += seconds
        self.worked_s += seconds


@pytest.mark.parametrize(("load", "goodput"), [(1.5, 0.8), (3.0, 0.5), (4.0, 0.5)])
def test_overload_leaves_most_of_the_worker_to_answers(load: float, goodput: float) -> None:
    worker = Worker(connections=5000)
    worker.run(load * PEAK, 5)
    assert worker.answered / 5 >= goodput * PEAK
    assert worker.longest_wait_s < 0.15


@pytest.mark.parametrize(("load", "share"), [(0.5, 0.0), (0.7, 0.0), (0.9, 0.015), (0.97, 0.03)])
def test_hardly_anybody_is_turned_away_below_the_limit(load: float, share: float) -> None:
    worker = Worker(connections=5000)
    worker.run(load * PEAK, 5)
    assert worker.refused <= share * worker.answered


def test_it_recovers_at_once() -> None:
    worker = Worker(connections=5000)
    worker.run(3 * PEAK, 2)
    worker.run(0.5 * PEAK, 0.2)
    before = worker.refused
    worker.run(0.5 * PEAK, 5)
    assert before > 0
    assert worker.refused == before


def test_few_connections_that_never_pause_are_all_answered() -> None:
    """Sixteen that ask again as soon as they are answered wait for 16 answers at most."""
    worker = Worker(connections=16)
    for _ in range(50_000):
        worker.serve(worker.now)
    assert worker.refused == 0


def test_many_idle_connections_cost_few_refusals() -> None:
    """Two thousand are open and sixteen ask: once the sixteen are turned away there is a pause."""
    worker = Worker(connections=2000)
    while worker.now < 5:
        for _ in range(16):
            worker.serve(worker.now)
        if worker.queue.shedding:
            worker.now += 0.0001
    assert worker.refused < 0.02 * worker.answered


def test_a_server_that_is_behind_with_reading_has_no_rest() -> None:
    """Requests wait unread while its own threads work without a break, though those that answer could rest."""
    worker = Worker(connections=1000)
    while not worker.queue.shedding:
        worker.serve(worker.now)
    for _ in range(500):
        worker.now += 0.00003
        worker.moved_s += 0.00003 + HANDOVER_S + SHED_S
        worker.serve(worker.now)
    assert worker.queue.shedding
    for _ in range(50):
        worker.now += 0.0001
        worker.serve(worker.now)
    assert not worker.queue.shedding


def test_threads_that_only_wait_for_a_core_turn_few_away() -> None:
    """Another program takes the core whenever they wake, so that they never rest, and yet nobody waits for long."""
    worker = Worker(connections=1000)
    while worker.now < 20:
        worker.now += 0.0015
        worker.worked_s += 0.0015
        worker.serve(worker.now)
    assert worker.refused < 0.05 * worker.answered


def test_threads_that_all_wait_for_somebody_have_no_rest() -> None:
    """Of two that answer, each waits for Redis most of the time, and takes no other request meanwhile."""
    now = [0.0]
    queue = Queue(0.05, 2, lambda: now[0], lambda: 1000, lambda: (0.0, 0.0))
    assert queue.enter()
    assert queue.enter()
    for _ in range(200):
        now[0] += 0.0005
        queue.leave()
        if not queue.enter():
            break
    assert queue.shedding


def test_what_a_thread_worked_is_at_least_its_cpu_time() -> None:
    own = threading.get_native_id()
    before, start = worked_s(own), time.thread_time()
    while time.thread_time() - start < 0.02:
        pass
    assert worked_s(own) - before >= 0.015
    assert time.clock_gettime(clock_of(own)) == pytest.approx(time.thread_time(), abs=0.05)
    assert worked_s(2**22 + 1) == 0.0
    assert ThreadTimes()()[1] == 0.0, "no server runs here"
