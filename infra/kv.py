"""The key-value protocol of the serving tables: named tables, int64 keys, opaque values, batched reads.

Stores hold the same rows whatever their partitions, so the content hash is taken here, over (table, key, value).
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from infra.errors import UsageError

RANKINGS, CANDIDATES, USERS, NEIGHBOURS, META = "rankings", "candidates", "users", "neighbours", "meta"
BARS = "bars"
SERVING_TABLES = (RANKINGS, CANDIDATES, USERS, NEIGHBOURS, META, BARS)
OPTIONAL_TABLES = (BARS,)
"""Tables that releases of earlier versions lack: they read as empty there."""

Int64 = npt.NDArray[np.int64]
_MASK = (1 << 64) - 1
_KEY = struct.Struct(">Q")


class KeyValueReader(Protocol):
    """Read access to an immutable set of tables. Thread-safe. A missing key reads as None."""

    def get(self, table: str, key: int) -> bytes | None: ...

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        """Values in the order of `keys`, in one round trip."""
        ...

    def count(self, table: str) -> int:
        """Rows of a table."""
        ...

    def close(self) -> None:
        """Frees the store; reading afterwards raises StoreError."""
        ...


class KeyValueWriter(Protocol):
    """Bulk load of a new set of tables. Keys of a table must come in strictly ascending order, in any cut."""

    def put(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        """Row i has the value `values[ends[i - 1] : ends[i]]`. Raises UsageError for keys out of order."""
        ...

    def finish(self) -> str:
        """Makes everything durable and returns the content hash."""
        ...


def encode_key(key: int) -> bytes:
    """Eight bytes that sort as the signed numbers do."""
    return _KEY.pack(key + (1 << 63))


def encode_keys(keys: Int64) -> npt.NDArray[np.uint8]:
    """uint8 [n, 8]; the same as encode_key for each."""
    shifted = np.ascontiguousarray(keys, np.int64).view(np.uint64) ^ np.uint64(1 << 63)
    return shifted.astype(">u8").view(np.uint8).reshape(-1, 8)


def decode_keys(encoded: bytes) -> Int64:
    """int64 [n] of 8 n bytes, as encode_key makes them."""
    return (np.frombuffer(encoded, ">u8").astype(np.uint64) ^ np.uint64(1 << 63)).view(np.int64)


def partition_of(key: int, partitions: int) -> int:
    """Where a key lives: splitmix64's finaliser (Steele et al., OOPSLA 2014), the same on every machine."""
    x = (key + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) % partitions


def partitions_of(keys: Int64, partitions: int) -> Int64:
    """int64 [n]; the same as partition_of for each."""
    x = np.ascontiguousarray(keys, np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) % np.uint64(partitions)).astype(np.int64)


class RowsHash:
    """Hash of the rows of all tables, independent of partitions and of how the rows are cut into calls."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[Any, Any, Any]] = {}
        self._last: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.size_bytes: dict[str, int] = {}

    def update(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        """Raises UsageError unless the keys ascend, within the call and since the last one."""
        if not len(keys):
            return
        last = self._last.get(table)
        if (keys[1:] <= keys[:-1]).any() or (last is not None and int(keys[0]) <= last):
            raise UsageError(
                f"{table}: keys out of order at {int(keys[0])}", "Write each table in ascending key order."
            )
        self._last[table] = int(keys[-1])
        self.rows[table] = self.rows.get(table, 0) + len(keys)
        self.size_bytes[table] = self.size_bytes.get(table, 0) + len(values)
        parts = self._tables.setdefault(table, (hashlib.sha256(), hashlib.sha256(), hashlib.sha256()))
        lengths = np.diff(ends, prepend=np.int64(0)).astype("<i8")
        for digest, part in zip(parts, (np.ascontiguousarray(keys).astype("<i8"), lengths, values), strict=True):
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)

    def hexdigest(self) -> str:
        total = hashlib.sha256()
        for table in sorted(self._tables):
            total.update(table.encode() + b"\0" + b"".join(part.digest() for part in self._tables[table]))
        return total.hexdigest()
