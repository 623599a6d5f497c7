"""A fleet of leaf processes answers as one leaf, outlives the death of a leaf, and confines what kills leaves."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.errors import NotFound, UsageError
from infra.model_routes import ModelRef
from infra.settings import Settings, load
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.fleet import LeafFleet, open_leaf
from lookup_api.leaves.leaf_metrics import SenderMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.protocol import LeafAway, LeafFailed, LeafLost, ModelLoading, Timed
from lookup_api.ranking.scorers import Array, Float32
from tests.suites.leaf_models import breaker, leaf_of, push, soon
from tests.suites.leaf_processes import LeafProcess, leaves
from tests.suites.model_folders import columns_of, small_spec

COLUMNS = columns_of(small_spec())
REF = ModelRef(name="small", version="1")


class Scripted:
    """A leaf that does what it is told, and notes how long it was given."""

    def __init__(self, *does: Exception | None) -> None:
        self.does = list(does)
        self.given: list[float] = []

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        self.given.append(deadline.left_s)
        done = self.does.pop(0) if self.does else None
        if done is not None:
            raise done
        return Timed(np.zeros(1, np.float32), 2.5)

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        return self.timed(model, columns, deadline).scores

    def close(self) -> None:
        self.given.append(-1.0)


def fleet_of(*members: Any, size: int = 2, make: Callable[[str], Any] = breaker) -> LeafFleet:
    counts = SenderMetrics(CollectorRegistry())
    return LeafFleet({str(at): one for at, one in enumerate(members)}, size, counts, make)


@pytest.mark.parametrize("error", [LeafAway("gone"), LeafLost("went"), LeafFailed("broken"), TooLate("silent")])
def test_what_one_leaf_cannot_the_other_of_the_pair_does(error: Exception) -> None:
    members = Scripted(error), Scripted(error)
    fleet = fleet_of(*members)
    members[1].does.clear()
    for _ in range(4):
        assert fleet.score(REF, COLUMNS, soon()).tolist() == [0]
    assert fleet.counts.moved._value.get() == 1
    assert {len(one.given) for one in members} <= {2, 3}


@pytest.mark.parametrize("error", [NotFound("no such model"), UsageError("a column")])
def test_what_no_other_leaf_could_either_is_not_asked_twice(error: Exception) -> None:
    members = Scripted(error), Scripted(error)
    with pytest.raises(type(error)):
        fleet_of(*members).score(REF, COLUMNS, soon())
    assert sum(len(one.given) for one in members) == 1


def test_a_leaf_that_loads_the_model_is_asked_again_rather_than_another() -> None:
    members = Scripted(ModelLoading("loads")), Scripted(ModelLoading("loads"))
    fleet_of(*members).score(REF, COLUMNS, soon())
    asked = next(one for one in members if one.given)
    assert sorted(len(one.given) for one in members) == [0, 2]
    assert asked.given[0] == pytest.approx(36, abs=3)
    assert asked.given[1] == pytest.approx(60, abs=3)


def test_a_model_that_ends_its_leaves_is_left_alone() -> None:
    members = Scripted(*[LeafLost("went")] * 9), Scripted(*[LeafLost("went")] * 9)
    fleet = fleet_of(*members)
    with pytest.raises(LeafLost):
        fleet.score(REF, COLUMNS, soon())
    with pytest.raises(LeafFailed, match="left alone"):
        fleet.score(REF, COLUMNS, soon())
    assert sum(len(one.given) for one in members) == 2, "a pair, and no leaf besides"
    other = ModelRef(name="small", version="2")
    members[0].does.clear()
    members[1].does.clear()
    assert fleet.score(other, COLUMNS, soon()).tolist() == [0]


def test_a_model_is_asked_of_its_own_leaves_alone_and_of_each_in_turn() -> None:
    members = [Scripted() for _ in range(8)]
    fleet = fleet_of(*members)
    for _ in range(10):
        fleet.score(REF, COLUMNS, soon())
    asked = {str(at): len(one.given) for at, one in enumerate(members) if one.given}
    assert asked == dict.fromkeys(fleet.shard(REF), 5)
    fleet.close()
    assert all(one.given[-1] == -1 for one in members)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return open_store(str(tmp_path_factory.mktemp("fleet") / "store"), create=True)


@pytest.fixture(scope="module")
def processes(store: ObjectStore) -> Iterator[list[LeafProcess]]:
    with leaves(store, 2, "leaves.memory_mib=2") as started:
        yield started


def settings_of(processes: list[LeafProcess]) -> Settings:
    addresses = ",".join(one.address for one in processes)
    flags = {"leaves.addresses": addresses, "leaves.timeout_ms": "60000", "ladder.breaker_wait_s": "0.01"}
    return load(None, flags, {})[0]


def test_a_fleet_and_one_process_give_the_same_answers(store: ObjectStore, processes: list[LeafProcess]) -> None:
    refs = [push(store, str(version)) for version in range(10, 22)]
    one, many = leaf_of(store), open_leaf(store.uri, settings_of(processes), CollectorRegistry())
    assert isinstance(many, LeafFleet)
    draw = np.random.default_rng(4)
    for at in range(300):
        columns = columns_of(small_spec(), rows=int(draw.integers(1, 60)), seed=at)
        ref = refs[int(draw.integers(len(refs)))]
        np.testing.assert_array_equal(many.score(ref, columns, soon()), one.score(ref, columns, soon()))
    many.close()


def test_without_addresses_this_process_scores(store: ObjectStore) -> None:
    assert isinstance(open_leaf(store.uri, Settings(), CollectorRegistry()), LocalLeaf)


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGSTOP, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_no_request_fails_when_a_leaf_dies_hangs_or_is_told_to_stop(
    how: signal.Signals, store: ObjectStore, tmp_path: Path
) -> None:
    ref = push(store, str(30 + how))
    with leaves(store, 2) as started:
        fleet = open_leaf(store.uri, settings_of(started), CollectorRegistry())
        expected = leaf_of(store).score(ref, COLUMNS, soon())
        for _ in range(4):
            fleet.score(ref, COLUMNS, soon())
        stop, failed = threading.Event(), []

        def ask() -> None:
            while not stop.is_set():
                try:
                    np.testing.assert_array_equal(fleet.score(ref, COLUMNS, Deadline.after(2)), expected)
                except Exception as error:
                    failed.append(error)

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        os.kill(started[0].process.pid, how)
        for _ in range(60):
            fleet.score(ref, COLUMNS, Deadline.after(2))
        stop.set()
        for thread in asking:
            thread.join()
        assert failed == []
        os.kill(started[0].process.pid, signal.SIGCONT)
        fleet.close()
