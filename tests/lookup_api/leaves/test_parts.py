"""Who scores many rows and is in no hurry asks for a few at a time."""

from collections.abc import Mapping

import numpy as np
import pytest

from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.parts import InParts
from lookup_api.leaves.protocol import Timed, TurnLate
from lookup_api.ranking.scorers import Array, Float32
from tests.suites.leaf_models import soon

REF = ModelRef(name="small", version="1")


class Stub:
    """A leaf that takes so long for a row, and has no turn after so many calls."""

    def __init__(self, row_ms: float, most_calls: int = 1000) -> None:
        self.row_ms, self.most_calls = row_ms, most_calls
        self.calls: list[int] = []

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        if len(self.calls) == self.most_calls:
            raise TurnLate("no turn")
        self.calls.append(len(columns["x"]))
        return Timed(columns["x"] + columns["wide"].sum(axis=1), self.row_ms * len(columns["x"]))

    def close(self) -> None: ...


def columns(rows: int) -> dict[str, Array]:
    return {"x": np.arange(rows, dtype=np.float32), "wide": np.ones((rows, 2), np.float32)}


@pytest.mark.parametrize(
    ("row_ms", "rows", "calls"),
    [
        (0.1, 200, [16, 32, 50, 50, 50, 2]),
        (100.0, 40, [16, 16, 8]),
        (0.0, 40, [16, 16, 8]),
        (1e-6, 3000, [16, 32, 64, 128, 256, 512, 1024, 968]),
        (1.0, 0, [0]),
    ],
)
def test_calls_are_as_long_as_they_are_to_be(row_ms: float, rows: int, calls: list[int]) -> None:
    leaf = Stub(row_ms)
    found = InParts(leaf).timed(REF, columns(rows), soon())
    assert leaf.calls == calls
    assert found.ms == row_ms * max(calls), "of the longest"
    np.testing.assert_array_equal(found.scores, np.arange(rows) + 2)


def test_a_list_is_scored_whole() -> None:
    leaf = Stub(1.0)
    assert len(InParts(leaf, whole=True).score(REF, columns(100), soon())) == 100
    assert leaf.calls == [100]


@pytest.mark.parametrize(("row_ms", "fault"), [(1.0, TurnLate), (1500.0, TooLate)])
def test_who_is_late_is_so_by_its_own_fault_if_its_calls_took_the_time(row_ms: float, fault: type) -> None:
    with pytest.raises(TooLate) as raised:
        InParts(Stub(row_ms, most_calls=2)).timed(REF, columns(100), Deadline.after(60))
    assert raised.type is fault
