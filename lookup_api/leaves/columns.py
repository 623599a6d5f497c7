"""The columns that a version of a model takes, compiled once: what is sent to it, and what it is given."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from infra.errors import UsageError
from infra.model_spec import InputSpec, ModelSpec
from lookup_api.ranking.scorers import Array, Float32, rows_of

EXACT = ("float16", "float32", "uint8")
"""Types of which every value is a float32 too."""

FORM = "packed by type"
"""How columns are sent that are cut by a list."""

Inputs = Float32 | dict[str, Array]
"""What a scorer takes: one matrix [n, width], which is quicker, or columns where a matrix would not hold them."""


@dataclass(frozen=True)
class ColumnList:
    """inputs: of one version of a model, in the order of its model.toml."""

    model: str
    inputs: tuple[InputSpec, ...]

    @classmethod
    def of(cls, spec: ModelSpec) -> "ColumnList":
        return cls(spec.name, spec.inputs)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that are others for other columns, types, widths or defaults, and for another form of sending them:
        leaves and workers of two releases of this code send all columns to each other."""
        told = [FORM, *(f"{one.name} {one.type} {one.width} {one.default!r}" for one in self.inputs)]
        return hashlib.blake2b("\n".join(told).encode(), digest_size=16).digest()

    @cached_property
    def widths(self) -> dict[str, int]:
        """Type -> numbers of it in a row, all columns together; by which comes first."""
        found: dict[str, int] = {}
        for one in self.inputs:
            found[one.type] = found.get(one.type, 0) + one.width
        return found

    @cached_property
    def _is_matrix(self) -> bool:
        return all(one.type in EXACT for one in self.inputs)

    def trimmed(self, columns: Mapping[str, Array]) -> list[Array]:
        """Each input's column, of its type: [n], or [n, width]; its default where it is left out.

        Raises UsageError for a column of another shape.
        """
        rows = rows_of(columns)
        return [self._column(columns.get(one.name), one, rows) for one in self.inputs]

    def inputs_of(self, trimmed: Sequence[Array]) -> Inputs:
        """What the model's scorer takes."""
        if not self._is_matrix:
            return {one.name: column for one, column in zip(self.inputs, trimmed, strict=True)}
        matrix = np.empty((len(trimmed[0]), sum(one.width for one in self.inputs)), np.float32)
        at = 0
        for one, column in zip(self.inputs, trimmed, strict=True):
            matrix[:, at : at + one.width] = column if one.width > 1 else column[:, None]
            at += one.width
        return matrix

    def inputs_of_packed(self, packed: Mapping[str, Array]) -> Inputs:
        """The same, of the columns of each type one after the other, by type: [n * widths].

        In one copy where there is one type: between copies numpy lets other threads run, and one that loads a model
        keeps its turn for a while.
        """
        if self._is_matrix and len(packed) == 1 and len(self.inputs) == sum(self.widths.values()):
            (values,) = packed.values()
            return np.array(values.reshape(len(self.inputs), -1).T, np.float32, order="C")
        return self.inputs_of(self.cut(packed))

    def cut(self, packed: Mapping[str, Array]) -> list[Array]:
        """The columns, [n] or [n, width] each."""
        rows, found, at = self.rows_of(packed), [], dict.fromkeys(packed, 0)
        for one in self.inputs:
            start, at[one.type] = at[one.type], at[one.type] + rows * one.width
            column = packed[one.type][start : at[one.type]]
            found.append(column if one.width == 1 else column.reshape(rows, one.width))
        return found

    def rows_of(self, packed: Mapping[str, Array]) -> int:
        """How many rows they are."""
        first, width = next(iter(self.widths.items()))
        return len(packed[first]) // width

    def _column(self, column: Array | None, wanted: InputSpec, rows: int) -> Array:
        if column is None:
            return wanted.defaults(rows)
        found = np.asarray(column, wanted.dtype)
        if found.shape != ((rows,) if wanted.width == 1 else (rows, wanted.width)):
            raise UsageError(f"{self.model}: column {wanted.name} is {list(found.shape)} of {rows} rows")
        return found


def together(parts: Sequence[Inputs]) -> Inputs:
    """The rows of several requests to one model, one after the other."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: np.concatenate([part[name] for part in parts if isinstance(part, dict)]) for name in first}
    return np.concatenate([part for part in parts if not isinstance(part, dict)])


def count_of(inputs: Inputs) -> int:
    """How many rows they are."""
    return rows_of(inputs) if isinstance(inputs, dict) else len(inputs)


def part_of(inputs: Inputs, rows: slice) -> Inputs:
    """Some of the rows."""
    if isinstance(inputs, dict):
        return {name: column[rows] for name, column in inputs.items()}
    return inputs[rows]
