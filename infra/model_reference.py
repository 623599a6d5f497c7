"""What a model's inputs and scores were like where it learnt: histograms in `reference.json` of its folder.

Serving counts what it sees between the same edges, and tells how far it has moved. A model without the file is served
all the same, and nobody tells.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import UsageError
from infra.model_spec import ModelSpec

FILE = "reference.json"
TENTHS = 10
MOST_EDGES = 64
MOST_BYTES = 16 << 20

Array = npt.NDArray[Any]
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Histogram(_Part):
    """counts[i]: values above edges[i - 1] and at most edges[i]; then those above the last edge, then those that are no
    numbers. edges ascend."""

    edges: Annotated[tuple[float, ...], Field(max_length=MOST_EDGES)]
    counts: tuple[Count, ...]

    @model_validator(mode="after")
    def _fits(self) -> "Histogram":
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges do not ascend")
        if len(self.counts) != len(self.edges) + 2:
            raise ValueError(f"{len(self.counts)} counts for {len(self.edges)} edges, not two more")
        return self

    @classmethod
    def of(cls, values: Array) -> "Histogram":
        """Between the tenths of values [n]. Where many are the least one, what is less counts apart."""
        numbers = np.asarray(values, np.float64)
        finite = numbers[np.isfinite(numbers)]
        edges: Array = np.zeros(0)
        if len(finite):
            edges = np.unique(np.quantile(finite, np.arange(1, TENTHS) / TENTHS, method="inverted_cdf"))
            if edges[0] == finite.min() and edges[0] > -float(np.finfo(np.float64).max):
                edges = np.concatenate([[np.nextafter(edges[0], -np.inf)], edges])
        return cls(edges=tuple(edges.tolist()), counts=tuple(counted(bounds_of(edges), numbers).tolist()))


class Reference(_Part):
    """inputs: by name, those of one value a row. scores: the model's own."""

    version: Literal[1] = 1
    inputs: dict[str, Histogram]
    scores: Histogram

    @classmethod
    def of(cls, spec: ModelSpec, columns: Mapping[str, Array], scores: Array) -> "Reference":
        """Of the rows that a model learnt on, or of many of them. columns: by name of the input, [n]; scores [n]."""
        inputs = {one.name: Histogram.of(columns[one.name]) for one in spec.inputs if one.width == 1}
        return cls(inputs=inputs, scores=Histogram.of(scores))

    def to_json(self) -> bytes:
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, spec: ModelSpec, where: str) -> "Reference":
        """Raises UsageError for bytes that are no reference of this model."""
        fix = "Write it by infra.model_reference.write_reference, or leave it out."
        if len(data) > MOST_BYTES:
            raise UsageError(f"{where}: {len(data):,} bytes, at most {MOST_BYTES:,} are read", fix)
        try:
            found = cls.model_validate(orjson.loads(data))
        except (ValidationError, ValueError, RecursionError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise UsageError(f"{where}: no reference of a model: {said}", fix) from None
        if strangers := sorted(found.inputs.keys() - {one.name for one in spec.inputs if one.width == 1}):
            raise UsageError(f"{where}: {strangers[0]}: is no input of one value of {spec.name}", fix)
        return found


def write_reference(folder: Path, spec: ModelSpec, columns: Mapping[str, Array], scores: Array) -> None:
    """Writes the file into a model's folder; columns and scores as `Reference.of` takes them."""
    (folder / FILE).write_bytes(Reference.of(spec, columns, scores).to_json())


def read_reference(folder: Path, spec: ModelSpec) -> Reference | None:
    """Of a model's folder; None where it has none. Raises UsageError for a file that is no reference of this model."""
    path = folder / FILE
    return Reference.from_json(path.read_bytes(), spec, str(path)) if path.is_file() else None


def bounds_of(edges: Array) -> npt.NDArray[np.float64]:
    """Upper ends of the bins but the last, float64 [edges + 1]: so that no number is after all of them."""
    return np.append(np.asarray(edges, np.float64), math.inf)


def counted(bounds: npt.NDArray[np.float64], values: Array) -> npt.NDArray[np.int64]:
    """How many of values [n] are in each bin, int64 [bounds + 1]."""
    return np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1)
