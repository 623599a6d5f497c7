"""Requests that wait for their turn at one model are scored together, and nobody pays for another."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.model_routes import ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.batches import Batches
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.protocol import LeafBusy, LeafFailed, ModelHangs
from lookup_api.leaves.residents import Resident
from lookup_api.ranking.scorers import Float32, Scorer
from tests.suites.leaf_models import breaker, soon
from tests.suites.model_folders import small_spec

LONGEST_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Held(Scorer):
    """Sums a row once it is let go on, and notes how many rows each call has; a negative row is an error."""

    go_on: threading.Event = field(default_factory=threading.Event)
    calls: list[int] = field(default_factory=list)

    def of_matrix(self, matrix: Float32) -> Float32:
        self.calls.append(len(matrix))
        assert self.go_on.wait(60)
        if (matrix < 0).any():
            raise ValueError("a row is negative")
        return np.asarray(matrix.sum(axis=1), np.float32)

    @classmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = "cpu") -> "Held":
        raise NotImplementedError


def resident(version: str = "1", **changes: Any) -> Resident:
    spec = small_spec(version=version, **changes)
    ref = ModelRef(name="small", version=version)
    return Resident(ref, spec, ColumnList.of(spec), Held(spec=spec), breaker("model"), 0.0)


def rows(value: float, count: int = 2) -> Float32:
    return np.full((count, 3), value, np.float32)


class Asking:
    """Batches with one math thread, and requests to it that come one after the other."""

    def __init__(self, most_waiting: int = 100) -> None:
        self.counts = HostMetrics(CollectorRegistry())
        self.now_s = 0.0
        self.batches = Batches(1, most_waiting, LONGEST_S, self.counts, lambda: self.now_s)
        self.pool = ThreadPoolExecutor(32)

    def ask(self, model: Resident, inputs: Float32, deadline: Deadline | None = None) -> "Future[Float32]":
        """Returns once the request scores or waits."""
        before = self.state()
        answer = self.pool.submit(self.scores, model, inputs, deadline or soon())
        while self.state() == before and not answer.done():
            time.sleep(0)
        return answer

    def scores(self, model: Resident, inputs: Float32, deadline: Deadline) -> Float32:
        return self.batches.score(model, inputs, deadline).scores

    def state(self) -> tuple[int, int]:
        return self.batches._free, self.batches._waiting


@pytest.fixture
def asking() -> Any:
    made = Asking()
    yield made
    made.pool.shutdown()


def held(model: Resident) -> Held:
    assert isinstance(model.scorer, Held)
    return model.scorer


def test_who_waits_for_the_same_model_is_scored_in_one_call(asking: Asking) -> None:
    model = resident()
    answers = [asking.ask(model, rows(value)) for value in range(6)]
    held(model).go_on.set()
    assert [answer.result().tolist() for answer in answers] == [[3.0 * v, 3.0 * v] for v in range(6)]
    assert held(model).calls == [2, 10]
    assert asking.state() == (1, 0)


def test_no_call_has_more_rows_than_the_model_takes(asking: Asking) -> None:
    model = resident(resources={"max_rows": 5})
    answers = [asking.ask(model, rows(value)) for value in range(6)]
    held(model).go_on.set()
    assert [answer.result().tolist() for answer in answers] == [[3.0 * v, 3.0 * v] for v in range(6)]
    assert held(model).calls == [2, 4, 4, 2]


def test_lists_are_scored_alone_and_models_take_turns(asking: Asking) -> None:
    lists, other = resident("1", unit="list"), resident("2")
    answers = [asking.ask(model, rows(1)) for model in (other, lists, other, lists, other)]
    held(lists).go_on.set()
    held(other).go_on.set()
    for answer in answers:
        assert answer.result().tolist() == [3, 3]
    assert (held(lists).calls, held(other).calls) == ([2, 2], [2, 4])


def test_columns_that_a_model_fails_of_fail_whoever_sent_them_alone(asking: Asking) -> None:
    model = resident()
    answers = [asking.ask(model, rows(value)) for value in (0, 1, -1, 2)]
    held(model).go_on.set()
    with pytest.raises(ValueError, match="negative"):
        answers[2].result()
    assert [answers[at].result().tolist() for at in (0, 1, 3)] == [[0, 0], [3, 3], [6, 6]]
    assert asking.state() == (1, 0)
    assert asking.ask(model, rows(4)).result().tolist() == [12, 12]


def test_who_runs_out_of_time_leaves_and_is_not_scored(asking: Asking) -> None:
    model = resident()
    first = asking.ask(model, rows(1))
    late, patient = asking.ask(model, rows(2), Deadline.after(0.02)), asking.ask(model, rows(3))
    with pytest.raises(TooLate):
        late.result()
    held(model).go_on.set()
    assert (first.result().tolist(), patient.result().tolist()) == ([3, 3], [9, 9])
    assert held(model).calls == [2, 2]
    with pytest.raises(TooLate):
        asking.batches.score(model, rows(1), Deadline.after(-1))
    assert asking.state() == (1, 0)


def test_more_who_wait_than_may_are_refused(asking: Asking) -> None:
    asking.batches._most_waiting = 2
    model = resident()
    answers = [asking.ask(model, rows(value)) for value in range(3)]
    with pytest.raises(LeafFailed, match="2 requests wait"):
        asking.batches.score(model, rows(9), soon())
    held(model).go_on.set()
    assert [answer.result()[0] for answer in answers] == [0, 3, 6]


def test_a_storm_of_requests_ends_with_everybody_answered() -> None:
    asking, models = Asking(1000), [resident(str(version)) for version in range(3)]
    for model in models:
        held(model).go_on.set()
    draws = np.random.default_rng(1).integers(0, 100, 600)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(asking.scores, models[v % 3], rows(v, 1 + v % 4), soon()) for v in draws]
        for value, answer in zip(draws, answers, strict=True):
            assert answer.result().tolist() == [3.0 * value] * (1 + value % 4)
    assert asking.state() == (1, 0)
    asking.pool.shutdown()


def test_a_call_that_hangs_gives_its_turn_to_others_and_its_model_is_left_alone(asking: Asking) -> None:
    hangs, other = resident("1"), resident("2")
    held(other).go_on.set()
    stuck = asking.ask(hangs, rows(1))
    while not held(hangs).calls:  # which begins a moment after its turn is taken
        time.sleep(0)
    behind, beside = asking.ask(hangs, rows(1)), asking.ask(other, rows(1))
    asking.now_s = LONGEST_S
    assert (asking.batches.hanging(), hangs.breaker.open) == (set(), False), "not yet"
    asking.now_s += 0.1
    assert asking.batches.hanging() == {hangs.ref}
    assert hangs.breaker.open
    assert beside.result().tolist() == [3, 3]
    with pytest.raises(ModelHangs):
        behind.result()
    assert asking.ask(other, rows(2)).result().tolist() == [6, 6]
    held(hangs).go_on.set()
    assert stuck.result().tolist() == [3, 3]
    assert (asking.state(), asking.batches.hanging()) == ((1, 0), set())


def test_who_is_to_be_scored_beside_nobody_is_refused_while_others_are(asking: Asking) -> None:
    model = resident()
    held(model).go_on.set()
    assert asking.batches.score(model, rows(1), soon(), spare=True).scores.tolist() == [3, 3]
    held(model).go_on.clear()
    first = asking.ask(model, rows(2))
    with pytest.raises(LeafBusy, match="others are scored"):
        asking.batches.score(model, rows(1), soon(), spare=True)
    held(model).go_on.set()
    assert first.result().tolist() == [6, 6]
