"""Breakers, retries and deadlines, on a clock that a test moves."""

import pytest

from infra.errors import StoreError
from lookup_api.breaker import LONGEST_WAIT_S, Breaker, retried
from lookup_api.deadline import Deadline, TooLate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock, failures: int = 3) -> Breaker:
    breaker = Breaker("part", failures, 1.0, clock)
    for _ in range(failures):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_it_opens_after_its_failures_and_lets_one_try_through_a_wait() -> None:
    clock = Clock()
    breaker = broken(clock)
    assert breaker.open
    assert not breaker.allows()
    clock.now += 1.0
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]


def test_a_try_that_succeeds_closes_it_and_forgets_the_failures() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1.0
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.open
    breaker.failed()
    assert breaker.allows()


def test_a_try_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    clock = Clock()
    breaker = broken(clock)
    for wait in (2.0, 4.0, 8.0, 16.0, LONGEST_WAIT_S, LONGEST_WAIT_S):
        clock.now += LONGEST_WAIT_S
        assert breaker.allows()
        breaker.failed()
        clock.now += 0.49 * wait
        assert not breaker.allows()
        clock.now += 0.52 * wait
        assert breaker.allows()


def test_a_try_that_never_reports_does_not_keep_it_open_for_good() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now += 1.0
    assert breaker.allows()
    clock.now += 1.0
    assert breaker.allows()


def test_failures_among_as_many_successes_leave_it_closed() -> None:
    breaker = Breaker("part", 3, 1.0, Clock())
    for _ in range(100):
        breaker.failed()
        breaker.succeeded()
    assert not breaker.open


def test_whoever_watches_is_told_when_it_opens_and_closes() -> None:
    clock, told = Clock(), []
    breaker = Breaker("part", 1, 1.0, clock)
    breaker.told = told.append
    breaker.failed()
    clock.now += 1.0
    breaker.allows()
    breaker.failed()
    clock.now += 2.0
    breaker.allows()
    breaker.succeeded()
    assert told == [1, 0]


def test_what_fails_once_is_tried_again_and_what_fails_for_good_is_told() -> None:
    calls = []

    def call(failures: int) -> str:
        calls.append(1)
        if len(calls) <= failures:
            raise StoreError("no")
        return "found"

    assert retried(lambda: call(1), Deadline.after(60), (StoreError,)) == "found"
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(StoreError):
        retried(lambda: call(9), Deadline.after(60), (StoreError,), retries=2)
    assert len(calls) == 3


def test_nothing_is_tried_again_after_the_deadline_nor_after_another_error() -> None:
    calls = []

    def call(error: Exception) -> None:
        calls.append(1)
        raise error

    with pytest.raises(StoreError):
        retried(lambda: call(StoreError("no")), Deadline.after(-1), (StoreError,))
    with pytest.raises(ZeroDivisionError):
        retried(lambda: call(ZeroDivisionError()), Deadline.after(60), (StoreError,))
    assert len(calls) == 2


def test_a_deadline_hands_down_the_sooner_end_and_names_the_step_that_is_too_late() -> None:
    request = Deadline.after(60)
    assert request.within(600).at_s == request.at_s
    assert request.within(1).left_s < 2
    request.check("anything")
    with pytest.raises(TooLate, match="no time left for the ranker"):
        Deadline.after(-0.001).check("the ranker")
