"""Content hashes: of logical values, never of bytes on disk, paths, times or costs."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

CHUNK = 1 << 22


class ContentHash:
    """Order-sensitive digest of named parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def text(self, name: str, value: str) -> "ContentHash":
        self._part(name, value.encode())
        return self

    def json(self, name: str, value: Any) -> "ContentHash":
        self._part(name, orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        return self

    def array(self, name: str, values: npt.NDArray[Any]) -> "ContentHash":
        """dtype, shape and values, read in chunks so that a memory map is never loaded whole."""
        self._part(name, f"{values.dtype.str}{values.shape}".encode())
        step = max(1, CHUNK // max(1, int(np.prod(values.shape[1:], dtype=np.int64))))
        for start in range(0, len(values), step):
            self._digest.update(np.ascontiguousarray(values[start : start + step]).view(np.uint8).reshape(-1).data)
        return self

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _part(self, name: str, value: bytes) -> None:
        self._digest.update(f"{name}:{len(value)}:".encode())
        self._digest.update(value)


def hash_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash of named arrays, independent of the mapping's order."""
    digest = ContentHash()
    for name in sorted(arrays):
        digest.array(name, arrays[name])
    return digest.hexdigest()


class TableHash:
    """Hash of a table given as batches in key order; independent of how the rows are cut into batches and files."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {}
        self.rows = 0

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        self.rows += batch.num_rows
        for name in batch.schema.names:
            column = batch.column(name)
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                self._values(name, chunk)

    def hexdigest(self) -> str:
        total = hashlib.sha256()
        for name in sorted(self._columns):
            total.update(name.encode() + self._columns[name].digest())
        return total.hexdigest()

    def _values(self, name: str, array: pa.Array) -> None:
        if pa.types.is_list(array.type):
            self._bytes(f"{name}[]", pc.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False))
            self._values(f"{name}.", array.flatten())
        elif pa.types.is_struct(array.type):
            for field in array.type:
                self._values(f"{name}{field.name}", pc.struct_field(array, field.name))
        elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            self._bytes(f"{name}#", pc.binary_length(array).fill_null(-1).to_numpy(zero_copy_only=False))
            digest = self._columns.setdefault(f"{name}'", hashlib.sha256())
            digest.update("".join(s for s in array.to_pylist() if s is not None).encode())
        else:
            self._bytes(f"{name}?", pc.is_null(array).to_numpy(zero_copy_only=False))
            filled = array.fill_null(0) if array.null_count else array
            self._bytes(name, filled.to_numpy(zero_copy_only=False))

    def _bytes(self, name: str, values: npt.NDArray[Any]) -> None:
        digest = self._columns.setdefault(name, hashlib.sha256())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)


def hash_tables(batches: Iterable[pa.RecordBatch | pa.Table]) -> str:
    """TableHash of all batches."""
    digest = TableHash()
    for batch in batches:
        digest.update(batch)
    return digest.hexdigest()
