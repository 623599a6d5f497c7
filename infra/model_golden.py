"""The golden batch of a model: rows of its inputs and what it must score them, `golden.parquet`.

Arrow is loaded when a batch is read or written: who only serves models does without.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infra.errors import UsageError
from infra.model_spec import InputSpec, ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "golden.parquet"
MOST_ROWS = 10_000

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """columns: by name of the input, [n], or [n, width] of a wide one. scores float32 [n]."""

    columns: Mapping[str, Array]
    scores: Float32

    def __len__(self) -> int:
        return len(self.scores)


def write_golden(folder: Path, spec: ModelSpec, golden: Golden) -> None:
    """Writes the batch into a model's folder; columns are cast to the types of the inputs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [to_arrow(np.asarray(golden.columns[one.name], one.dtype)) for one in spec.inputs]
    arrays.append(pa.array(np.asarray(golden.scores, np.float32)))
    pq.write_table(pa.Table.from_arrays(arrays, names=[*spec.columns, spec.output]), folder / FILE)


def read_golden(folder: Path, spec: ModelSpec) -> Golden:
    """The batch of a model's folder. Raises UsageError where it does not fit the inputs that model.toml names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file", "Write rows of the inputs and their scores; docs/models.md shows how."
        )
    wanted = [*spec.columns, spec.output]
    try:
        missing = [name for name in wanted if name not in pq.read_schema(path).names]
        if missing:
            raise UsageError(f"{path}: has no column {', '.join(missing)}", "Write one for each input, and the scores.")
        table = pq.read_table(path, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: cannot be read: {str(error).splitlines()[0]}", "Write it as Parquet.") from None
    if not 1 <= table.num_rows <= MOST_ROWS:
        raise UsageError(f"{path}: {table.num_rows} rows", f"Write 1 to {MOST_ROWS:,} rows.")
    columns = {one.name: _from_arrow(table[one.name], one, path) for one in spec.inputs}
    scores = _from_arrow(table[spec.output], InputSpec(name=spec.output), path)
    if not np.isfinite(scores).all():
        raise UsageError(f"{path}: {spec.output} holds scores that are not finite", "Score the rows again.")
    return Golden(columns, scores)


def to_arrow(values: Array) -> "pa.Array":
    """A column [n], or [n, width] as lists of that many."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _from_arrow(column: "pa.ChunkedArray", spec: InputSpec, path: Path) -> Array:
    """Raises UsageError for nulls and for another type or width than the input's."""
    import pyarrow as pa

    values, array = pa.from_numpy_dtype(spec.dtype), column.combine_chunks()
    wanted = values if spec.width == 1 else pa.list_(values, spec.width)
    if array.type != wanted or array.null_count:
        found = f"{array.null_count} nulls" if array.null_count else f"type {array.type}"
        raise UsageError(f"{path}: column {spec.name} has {found}", f"Write {wanted} without nulls.")
    if spec.width == 1:
        return np.asarray(array.to_numpy(zero_copy_only=False))
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False)).reshape(-1, spec.width)
