"""When requests are turned away: only where so many could wait that it would be too long, and only until a pause."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from lookup_api.shedding import PAUSE_S, Queue, TransportTime, clock_of

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
    waiting: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.queue = Queue(self.wait_s, lambda: self.now, lambda: self.connections, lambda: 0.0)

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
        self.now += HANDOVER_S
        if self.queue.enter():
            self.longest_wait_s = max(self.longest_wait_s, self.now - arrived)
            self.now += SERVICE_S
            self.queue.leave()
            self.answered += 1
        else:
            self.now += SHED_S
            self.refused += 1


@pytest.mark.parametrize(("load", "goodput"), [(1.5, 0.8), (3.0, 0.5), (4.0, 0.5)])
def test_overload_leaves_most_of_the_worker_to_answers(load: float, goodput: float) -> None:
    worker = Worker(connections=5000)
    worker.run(load * PEAK, 5)
    assert worker.answered / 5 >= goodput * PEAK
    assert worker.longest_wait_s < 0.15


@pytest.mark.parametrize(("load", "share"), [(0.5, 0.0), (0.7, 0.0), (0.9, 0.01), (0.97, 0.03)])
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
            worker.now += 2 * PAUSE_S
    assert worker.refused < 0.02 * worker.answered


def test_a_server_busy_reading_is_not_at_rest() -> None:
    """While it turns requests away, a gap in which the server's own threads worked is no pause."""
    now, spent = [0.0], [0.0]
    queue = Queue(0.05, lambda: now[0], lambda: 1000, lambda: spent[0])
    while not queue.shedding:
        if queue.enter():
            now[0] += SERVICE_S
            queue.leave()
    for _ in range(3):
        now[0] += 0.001
        spent[0] += 0.001
        assert not queue.enter()
    now[0] += 0.001
    assert queue.enter()


def test_the_clock_of_a_thread_is_its_cpu_time() -> None:
    import threading
    import time

    before = time.clock_gettime(clock_of(threading.get_native_id()))
    assert before == pytest.approx(time.thread_time(), abs=0.05)
    assert TransportTime()() == 0.0, "no server runs here"
