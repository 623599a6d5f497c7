"""When requests are turned away: only those that waited for too long, as marks in the same queue tell."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lookup_api.shedding import LOST_S, MARKS, VARIABLE, Queue

SERVICE_S, SHED_S, MARK_S = 0.0002, 0.00003, 0.00003
"""What an answer, a refusal and a mark cost the simulated worker."""
PEAK = 1 / SERVICE_S
ASKED = {"SERVER_SOFTWARE": "Granian", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000"}


@dataclass
class FakeWire:
    """A connection whose marks go into a worker's queue. elsewhere: to another worker, which answers at once."""

    worker: "Worker"
    elsewhere: bool = False
    broken: bool = False
    closed: bool = False
    answered: bool = False

    def send(self, mark: str) -> None:
        if self.broken:
            raise ConnectionResetError
        self.answered = self.elsewhere
        if not self.elsewhere:
            self.worker.waiting.append((mark, self))

    def heard(self) -> bool:
        if self.broken:
            raise ConnectionResetError
        return self.answered

    def close(self) -> None:
        self.closed = True


@dataclass
class Worker:
    """One thread with a queue in front, as the server has it: nothing of the queue is told to the code in question."""

    connections: int = 5000
    wait_s: float = 0.05
    service_s: float = SERVICE_S
    now: float = 0.0
    answered: int = 0
    refused: int = 0
    marks: int = 0
    waits_s: list[float] = field(default_factory=list)
    refused_after_s: list[float] = field(default_factory=list)
    waiting: deque[tuple[Any, Any]] = field(default_factory=deque)
    wires: list[FakeWire] = field(default_factory=list)
    elsewhere: int = 0

    def __post_init__(self) -> None:
        self.queue = Queue(self.wait_s, lambda: self.now, lambda: self.connections, self.connect)

    def connect(self, host: str, port: int) -> FakeWire:
        assert (host, port) == ("127.0.0.1", 8000)
        self.wires.append(FakeWire(self, elsewhere=len(self.wires) < self.elsewhere))
        return self.wires[-1]

    def run(self, per_s: float, seconds: float) -> None:
        """Requests arrive by chance; one that finds all connections taken is dropped by its sender."""
        draw = np.random.default_rng(17)
        arrivals = self.now + np.cumsum(draw.exponential(1 / per_s, int(per_s * seconds)))
        for arrival in arrivals.tolist():
            while self.waiting and self.now < arrival:
                self.serve()
            self.now = max(self.now, arrival)
            if len(self.waiting) < self.connections + 1000:
                self.waiting.append((None, arrival))

    def serve(self) -> None:
        mark, arrived = self.waiting.popleft()
        if mark is not None:
            self.marks += 1
            self.now += MARK_S
            assert self.queue.passed({VARIABLE: mark})
            arrived.answered = True
        elif self.queue.enter(ASKED):
            self.waits_s.append(self.now - arrived)
            self.now += self.service_s
            self.answered += 1
        else:
            self.refused_after_s.append(self.now - arrived)
            self.now += SHED_S
            self.refused += 1


@pytest.mark.parametrize(("load", "goodput"), [(1.5, 0.85), (3.0, 0.6), (4.0, 0.4)])
def test_overload_leaves_what_refusals_do_not_cost_to_answers(load: float, goodput: float) -> None:
    worker = Worker()
    worker.run(load * PEAK, 5)
    assert worker.answered / 5 >= goodput * PEAK
    assert max(worker.waits_s) < 2.5 * worker.wait_s


def test_whoever_is_turned_away_has_waited_for_too_long() -> None:
    worker = Worker()
    worker.run(3 * PEAK, 2)
    assert worker.refused > 0
    assert min(worker.refused_after_s) > worker.wait_s


@pytest.mark.parametrize("load", [0.5, 0.7, 0.9])
def test_nobody_is_turned_away_below_the_limit(load: float) -> None:
    worker = Worker()
    worker.run(load * PEAK, 5)
    assert worker.refused == 0
    assert worker.marks <= 5 / (worker.wait_s / 4) + 1, "marks cost little"


def test_it_recovers_at_once() -> None:
    worker = Worker()
    worker.run(3 * PEAK, 2)
    worker.run(0.5 * PEAK, 0.15)
    before, waits = worker.refused, len(worker.waits_s)
    worker.run(0.5 * PEAK, 3)
    assert before > 0
    assert worker.refused == before
    assert max(worker.waits_s[waits:]) < worker.wait_s


def test_a_burst_after_a_rest_is_answered_as_far_as_time_goes() -> None:
    """A thousand at once, of whom the first mark knows when it was sent: a quarter is answered, nobody is late."""
    worker = Worker()
    worker.run(0.5 * PEAK, 1)
    worker.answered = worker.refused = 0
    worker.waiting.extend([(None, worker.now)] * 1000)
    while worker.waiting:
        worker.serve()
    assert worker.answered >= 200
    assert worker.answered + worker.refused >= 1000
    assert max(worker.waits_s) < 2.5 * worker.wait_s


def test_few_callers_are_never_turned_away_however_slow_answers_are() -> None:
    worker = Worker(connections=0, service_s=0.015)
    for _ in range(1000):
        worker.waiting.extend([(None, worker.now)] * (16 - len(worker.waiting)))
        worker.serve()
    assert worker.refused == 0


def test_another_worker_on_the_port_is_noticed_and_left() -> None:
    worker = Worker(elsewhere=3)
    worker.run(3 * PEAK, 2)
    assert worker.refused > 0
    assert [wire.closed for wire in worker.wires[:4]] == [True, True, True, False]


def test_a_lost_mark_turns_nobody_away_for_long() -> None:
    worker = Worker()
    worker.run(0.5 * PEAK, 1)
    lost = next(n for n, (mark, _) in enumerate(worker.waiting) if mark) if any(m for m, _ in worker.waiting) else None
    while lost is None:
        worker.run(0.5 * PEAK, 0.002)
        lost = next((n for n, (mark, _) in enumerate(worker.waiting) if mark), None)
    wire = worker.waiting[lost][1]
    del worker.waiting[lost]
    worker.run(0.5 * PEAK, LOST_S + 0.1)
    assert worker.refused == 0
    assert wire.closed


def test_a_broken_line_is_opened_again() -> None:
    worker = Worker()
    worker.run(0.5 * PEAK, 1)
    opened = len(worker.wires)
    for wire in worker.wires:
        wire.broken = True
    worker.run(3 * PEAK, 2)
    assert len(worker.wires) > opened
    assert worker.refused > 0


def test_no_more_lines_than_marks() -> None:
    worker = Worker(service_s=0.5, connections=0)
    for _ in range(20):
        worker.waiting.append((None, worker.now))
        worker.queue.enter(ASKED)
        worker.now += 0.02
    assert len(worker.wires) == MARKS


def test_without_a_server_that_tells_its_port_everybody_comes_in() -> None:
    """Under another server, or a test client, no mark is sent anywhere."""
    now = [0.0]
    queue = Queue(0.05, lambda: now[0], lambda: 1000)
    for _ in range(100):
        now[0] += 0.1
        assert queue.enter({"SERVER_NAME": "localhost", "SERVER_PORT": "80"})


def test_a_strangers_mark_is_none() -> None:
    assert not Queue(0.05).passed({VARIABLE: "1-1"})
    assert not Queue(0.05).passed({})
