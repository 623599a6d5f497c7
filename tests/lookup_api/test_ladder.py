"""The ladder with rungs that a test makes fail: who answers, what is said of it, and that rules run on every rung."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from infra.ranking_blob import encode_ranking
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ladder import Ask, Ladder, NoFacts, Offer, Outcome, Query, Spared
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.metrics import Metrics
from lookup_api.written_list import NEAR

VIEWER = 1000


@dataclass
class Rung:
    source: str
    does: Callable[[], Offer | None]
    breaker: Breaker
    asked: int = 0

    def offer(self, ask: Ask) -> Offer | None:
        self.asked += 1
        return self.does()


def offer_of(people: Sequence[int], **more: Any) -> Offer:
    blob = encode_ranking(people, [1.0] * len(people), [(NEAR,)] * len(people), [0] * len(people))
    return Offer(blob, **more)


def failing(error: BaseException) -> Callable[[], Offer | None]:
    def does() -> Offer | None:
        raise error

    return does


def ladder_of(*does: Callable[[], Offer | None]) -> Ladder:
    metrics = Metrics()
    rungs = [Rung(f"rung {at}", one, Breaker(f"rung {at}", 3, 60.0)) for at, one in enumerate(does)]
    return Ladder(rungs, (5, 3), 2, metrics, LadderMetrics(metrics.registry))


def climbed(ladder: Ladder, facts: NoFacts | None = None, exclude: Sequence[int] = (), explain: bool = True) -> Outcome:
    release: Any = SimpleNamespace(release_id="r", departed={})
    query = Query(VIEWER, 10, frozenset(exclude), explain)
    return ladder.climb(Ask(query, release, facts or NoFacts(), Deadline.after(60)))


def shown(outcome: Outcome) -> list[int]:
    assert outcome.offer is not None
    return [int(item["user_id"]) for item in orjson.loads(outcome.shown.items)]


@pytest.mark.parametrize(
    ("first", "degraded", "told"),
    [
        (lambda: None, False, "empty"),
        (lambda: offer_of([VIEWER]), False, "empty"),
        (failing(ZeroDivisionError()), True, "failed"),
        (failing(TooLate("late")), True, "late"),
        (failing(Spared()), True, "spared"),
    ],
)
def test_the_next_rung_answers_and_only_a_failure_degrades(first: Any, degraded: bool, told: str) -> None:
    outcome = climbed(ladder_of(first, lambda: offer_of([1, 2])))
    assert (outcome.source, outcome.degraded, shown(outcome)) == ("rung 1", degraded, [1, 2])
    assert [one.outcome for one in outcome.tried] == [told, "answered"]


def test_a_rung_that_went_without_a_part_says_so() -> None:
    outcome = climbed(ladder_of(lambda: offer_of([1], degraded=True, without=("shard 1",))))
    assert outcome.degraded
    assert outcome.tried[0].without == ("shard 1",)


def test_nobody_is_left_is_source_none() -> None:
    outcome = climbed(ladder_of(lambda: offer_of([1]), lambda: None), exclude=[1])
    assert (outcome.source, outcome.offer, outcome.degraded) == ("none", None, False)


def test_every_rung_passes_the_rules_and_the_facts() -> None:
    """Self, excluded, barred for the viewer, hidden from all, and whom the rung itself bars."""
    facts = NoFacts(barred={2: "blocked"}, hidden={3: "banned"})
    for at in range(3):
        does: list[Callable[[], Offer | None]] = [lambda: None] * at
        last = offer_of([VIEWER, 1, 2, 3, 4, 5], bars=({5: "not_for_user"},))
        outcome = climbed(ladder_of(*does, lambda last=last: last), facts, exclude=[4])  # type: ignore[misc]
        assert (outcome.source, shown(outcome)) == (f"rung {at}", [1])
        dropped = {"self": 1, "blocked": 1, "banned": 1, "exclude_parameter": 1, "not_for_user": 1}
        assert outcome.shown.dropped == dropped


def test_whoever_was_shown_often_sinks_on_every_rung() -> None:
    outcome = climbed(ladder_of(lambda: offer_of([1, 2, 3, 4])), NoFacts(fatigue={1: 1}))
    assert shown(outcome) == [2, 1, 3, 4]


def test_a_rung_that_keeps_failing_is_left_alone_and_the_answer_stays_degraded() -> None:
    ladder = ladder_of(failing(OSError()), lambda: offer_of([1]))
    outcomes = [climbed(ladder) for _ in range(10)]
    assert ladder.rungs[0].asked == 3  # type: ignore[attr-defined]
    assert all(outcome.degraded and outcome.source == "rung 1" for outcome in outcomes)
    assert outcomes[-1].tried[0].outcome == "open"


def test_being_spared_is_no_failure_of_the_rung() -> None:
    ladder = ladder_of(failing(Spared()), lambda: offer_of([1]))
    for _ in range(10):
        climbed(ladder)
    assert not ladder.rungs[0].breaker.open


def test_a_corrupt_list_is_a_failure_of_its_rung() -> None:
    outcome = climbed(ladder_of(lambda: Offer(b"\x01garbage"), lambda: offer_of([1])))
    assert (outcome.source, outcome.degraded) == ("rung 1", True)
