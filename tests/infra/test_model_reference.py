"""A model's reference: what is counted between its edges, and that nothing else is taken for one."""

import math
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from infra.errors import UsageError
from infra.model_reference import FILE, Histogram, Reference, bounds_of, counted, read_reference, write_reference
from infra.model_spec import InputSpec
from tests.suites.model_folders import columns_of, small_spec

DRAW = np.random.default_rng(4)
VALUES = {
    "continuous": DRAW.normal(size=5000).astype(np.float32),
    "few values": DRAW.integers(0, 4, 3000),
    "mostly zero": np.where(DRAW.random(2000) < 0.95, 0, DRAW.random(2000)),
    "constant": np.full(50, 0.5, np.float16),
    "one": np.array([7], np.uint8),
    "with holes": np.where(DRAW.random(900) < 0.3, np.nan, DRAW.normal(size=900)),
    "holes alone": np.full(9, np.nan),
    "endless": np.array([-np.inf, 1.0, 2.0, np.inf, np.inf]),
    "none": np.zeros(0),
}


def by_hand(edges: tuple[float, ...], values: Any) -> list[int]:
    """One value after the other, by the standard library."""
    counts = [0] * (len(edges) + 2)
    for value in np.asarray(values, np.float64).tolist():
        counts[len(edges) + 1 if math.isnan(value) else bisect_left(edges, value)] += 1
    return counts


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_in_one_bin(name: str) -> None:
    found = Histogram.of(VALUES[name])
    assert list(found.counts) == by_hand(found.edges, VALUES[name])
    assert sum(found.counts) == len(VALUES[name])


def test_bins_of_a_continuous_value_are_tenths() -> None:
    found = Histogram.of(VALUES["continuous"])
    assert found.counts == (500,) * 10 + (0,)


@pytest.mark.parametrize(("moved", "bin_"), [(0.4, 0), (0.5, 1), (0.6, 2), (math.nan, 3)])
def test_a_constant_that_moves_is_counted_apart(moved: float, bin_: int) -> None:
    edges = Histogram.of(VALUES["constant"]).edges
    assert counted(bounds_of(np.array(edges)), np.array([moved])).tolist() == [bin_ == at for at in range(4)]


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = small_spec(inputs=(InputSpec(name="walk"), InputSpec(name="embedding", width=4)))
    columns = columns_of(spec)
    write_reference(tmp_path, spec, columns, columns["walk"] * 2)
    found = read_reference(tmp_path, spec)
    assert found == Reference.of(spec, columns, columns["walk"] * 2)
    assert found is not None
    assert list(found.inputs) == ["walk"], "an embedding has no histogram"


def test_a_folder_without_it_has_none(tmp_path: Path) -> None:
    assert read_reference(tmp_path, small_spec()) is None


SCORES: dict[str, Any] = {"edges": [0.0, 1.0], "counts": [1, 2, 3, 0]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (b"{", "no reference"),
        (b"[" * 100_000, "no reference"),
        ({"version": 2, "inputs": {}, "scores": SCORES}, "Input should be 1"),
        ({"inputs": {}}, "Field required"),
        ({"inputs": {"other": SCORES}, "scores": SCORES}, "other: is no input of one value of small"),
        ({"inputs": {}, "scores": SCORES | {"counts": [1, 2, 3]}}, "3 counts for 2 edges"),
        ({"inputs": {}, "scores": SCORES | {"counts": [1, 2, -3, 0]}}, "greater than or equal to 0"),
        ({"inputs": {}, "scores": SCORES | {"edges": [1.0, 1.0]}}, "edges do not ascend"),
        ({"inputs": {}, "scores": SCORES | {"edges": [0.0, "x"]}}, "valid number"),
        ({"inputs": {}, "scores": SCORES | {"edges": [0.0, None]}}, "valid number"),
        ({"inputs": {}, "scores": {"edges": [*range(65)], "counts": [0] * 67}}, "at most 64"),
        ({"inputs": {}, "scores": SCORES, "code": "x"}, "Extra inputs"),
    ],
)
def test_what_is_none_is_refused(values: Any, said: str, tmp_path: Path) -> None:
    data = values if isinstance(values, bytes) else orjson.dumps(values)
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(UsageError, match=said):
        read_reference(tmp_path, small_spec())
