"""Who scores many rows and is in no hurry asks leaf processes for some at a time."""

from collections.abc import Mapping

import numpy as np
import pytest

from infra.model_routes import ModelRef
from infra.model_spec import Resources
from lookup_api.deadline import Deadline
from lookup_api.leaves.parts import InParts
from lookup_api.leaves.protocol import Timed
from lookup_api.ranking.scorers import Array, Float32
from tests.suites.leaf_models import soon
from tests.suites.model_folders import small_spec

REF = ModelRef(name="small", version="1")


class Stub:
    """A leaf that takes a millisecond for a row."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        self.calls.append(len(columns["x"]))
        return Timed(columns["x"] + columns["wide"].sum(axis=1), float(len(columns["x"])))

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("unit", "most", "rows", "calls"),
    [
        ("row", 4096, 2500, [1024, 1024, 452]),
        ("row", 16, 40, [16, 16, 8]),
        ("row", 16, 0, [0]),
        ("list", 16, 40, [40]),
    ],
)
def test_calls_are_of_no_more_rows_than_a_model_takes_but_lists_are_whole(
    unit: str, most: int, rows: int, calls: list[int]
) -> None:
    leaf, spec = Stub(), small_spec(unit=unit, resources=Resources(max_rows=most))
    columns = {"x": np.arange(rows, dtype=np.float32), "wide": np.ones((rows, 2), np.float32)}
    found = InParts(leaf, lambda ref, deadline: spec).timed(REF, columns, soon())
    assert (leaf.calls, found.ms) == (calls, rows)
    np.testing.assert_array_equal(found.scores, np.arange(rows) + 2)
