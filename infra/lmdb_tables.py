"""Serving tables in hash-partitioned LMDB files: part-00000.lmdb … , one named database a table.

A release's files never change, so readers take no locks, leave no lock files and share the page cache.
"""

import heapq
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact, PymkError, StoreError, UsageError
from infra.kv import (
    OPTIONAL_TABLES,
    SERVING_TABLES,
    Int64,
    RowsHash,
    decode_keys,
    encode_key,
    encode_keys,
    partition_of,
    partitions_of,
)
from infra.memory_lock import MemoryLock

PATTERN = "part-{:05d}.lmdb"
MAP_BYTES = 1 << 40
"""Address space of a file being written; LMDB takes disk only for what is stored."""
BLOCK_ROWS = 4096
"""Rows that are read at a time from beginning to end."""
MANY = 48
"""Keys of one read from which they are encoded together."""
FULL_BELOW_BYTES = 16 << 20
"""Free space below which a failed write is put down to a full disk: a commit writes many pages at once."""


class LmdbTables:
    """Reads the tables that LmdbWriter wrote into `folder`."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("part-*.lmdb"))
        if not files or [f.name for f in files] != [PATTERN.format(i) for i in range(len(files))]:
            raise CorruptArtifact(f"{folder}: {len(files)} serving files are not a whole set", "Verify the release.")
        self.folder = folder
        self.partitions = len(files)
        self._parts: list[_SharedFile] = []
        try:
            self._parts.extend(_SharedFile.open(path) for path in files)
        except BaseException:
            self.close()
            raise

    def get(self, table: str, key: int) -> bytes | None:
        return self._part(partition_of(key, self.partitions)).get(table, encode_key(key))

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        if len(keys) >= MANY:
            return self._get_very_many(table, keys)
        wanted: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            wanted.setdefault(partition_of(key, self.partitions), []).append(place)
        found: list[bytes | None] = [None] * len(keys)
        for part, places in wanted.items():
            values = self._part(part).get_many(table, [encode_key(keys[place]) for place in places])
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def _get_very_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        """The same for so many keys that it pays to encode them together."""
        numbers = np.array(keys, np.int64)
        encoded = encode_keys(numbers).tobytes()
        parts = partitions_of(numbers, self.partitions)
        found: list[bytes | None] = [None] * len(keys)
        for part in range(self.partitions):
            places = np.flatnonzero(parts == part).tolist()
            values = self._part(part).get_many(table, [encoded[8 * place : 8 * place + 8] for place in places])
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def count(self, table: str) -> int:
        return sum(self._part(part).count(table) for part in range(self.partitions))

    def blocks(self, table: str, rows: int = BLOCK_ROWS) -> Iterator[tuple[Int64, npt.NDArray[np.uint8], Int64]]:
        """All rows of a table in key order, some at a time, as KeyValueWriter.put takes them."""
        merged = heapq.merge(*(self._part(part).rows(table) for part in range(self.partitions)))
        while block := list(islice(merged, rows)):
            keys, values = zip(*block, strict=True)
            ends = np.cumsum([len(value) for value in values])
            yield decode_keys(b"".join(keys)), np.frombuffer(b"".join(values), np.uint8), ends

    def keep_in_memory(self) -> None:
        """Locks the files' pages until they are closed. Raises NotLocked and OSError; what is locked stays so."""
        for part in self._parts:
            part.keep_in_memory()

    @property
    def locked_bytes(self) -> int:
        """Of the files that are locked in memory."""
        return sum(part.kept.size_bytes for part in self._parts if part.kept is not None)

    def close(self) -> None:
        """Gives the files back; they are unmapped when the last reader of this process has closed them."""
        parts, self._parts = self._parts, []
        for part in parts:
            part.release()

    def _part(self, number: int) -> "_SharedFile":
        try:
            return self._parts[number]
        except IndexError:
            raise StoreError(f"{self.folder}: read after close") from None


class _SharedFile:
    """One LMDB file, opened once a process: LMDB forbids a second handle, and two releases may share an artifact."""

    _open: dict[Path, "_SharedFile"] = {}  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readers = 0
        self.kept: MemoryLock | None = None
        try:
            self.env = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, max_dbs=len(SERVING_TABLES),
                max_spare_txns=64,
            )  # fmt: skip
        except lmdb.Error as error:
            raise CorruptArtifact(f"{path}: LMDB cannot open it: {error}", "Verify the release.") from error
        try:
            self.tables = dict(self._opened())
            self._snapshots = threading.local()
        except lmdb.Error as error:
            self.env.close()
            raise CorruptArtifact(f"{path}: a serving table is missing: {error}", "Verify the release.") from error

    def _opened(self) -> "Iterator[tuple[str, lmdb._Database | None]]":
        for name in SERVING_TABLES:
            try:
                yield name, self.env.open_db(name.encode(), create=False)
            except lmdb.NotFoundError:
                if name not in OPTIONAL_TABLES:
                    raise
                yield name, None

    @classmethod
    def open(cls, path: Path) -> "_SharedFile":
        with cls._lock:
            key = path.resolve()
            shared = cls._open.get(key) or cls._open.setdefault(key, cls(key))
            shared.readers += 1
            return shared

    def release(self) -> None:
        with self._lock:
            self.readers -= 1
            if self.readers == 0:
                del self._open[self.path]
                self.env.close()
                if self.kept is not None:
                    self.kept.close()

    def keep_in_memory(self) -> None:
        if self.kept is None:
            self.kept = MemoryLock(self.path)

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found = self._table(table)
            return None if found is None else self._snapshot().get(key, db=found)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            get, found = self._snapshot().get, self._table(table)
            return [None] * len(keys) if found is None else [get(key, None, found) for key in keys]
        except lmdb.Error as error:
            raise self._failed(error) from error

    def count(self, table: str) -> int:
        try:
            found = self._table(table)
            return 0 if found is None else int(self._snapshot().stat(found)["entries"])
        except lmdb.Error as error:
            raise CorruptArtifact(f"{self.path}: cannot be read: {error}", "Verify the release.") from error

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in the order of the keys."""
        try:
            found = self._table(table)
            yield from () if found is None else self._snapshot().cursor(db=found)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def _snapshot(self) -> "lmdb.Transaction[bytes]":
        """The thread's one read transaction: the file never changes, so beginning one a read would be for nothing."""
        try:
            return self._snapshots.txn  # type: ignore[no-any-return]
        except AttributeError:
            self._snapshots.txn = self.env.begin()
            return self._snapshots.txn

    def _failed(self, error: Exception) -> StoreError:
        return StoreError(f"{self.path}: cannot be read: {error}", "Verify the release.")

    def _table(self, name: str) -> "lmdb._Database | None":
        """None for a table that this file was written without."""
        try:
            return self.tables[name]
        except KeyError:
            raise UsageError(f"{name!r}: no such table", f"Tables: {', '.join(self.tables)}.") from None


class LmdbWriter:
    """Writes new tables into an empty folder. Use as a context manager; `finish` seals the files."""

    def __init__(self, folder: Path, partitions: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.hash = RowsHash()
        self._paths = [folder / PATTERN.format(part) for part in range(partitions)]
        self._parts: list[lmdb.Environment] = []
        with _explained(folder):
            self._parts = [_new_file(path) for path in self._paths]
            self._tables = [{name: part.open_db(name.encode()) for name in SERVING_TABLES} for part in self._parts]

    def __enter__(self) -> "LmdbWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def put(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        self.hash.update(table, keys, values, ends)
        parts = partitions_of(keys, len(self._parts))
        encoded = encode_keys(keys).tobytes()
        data = memoryview(np.ascontiguousarray(values))  # type: ignore[arg-type]
        starts = np.concatenate([[0], ends[:-1]])
        for number, part in enumerate(self._parts):
            chosen = np.flatnonzero(parts == number)
            rows = zip(chosen.tolist(), starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
            items = [(encoded[8 * row : 8 * row + 8], data[start:end]) for row, start, end in rows]
            with _explained(self.folder), part.begin(write=True) as txn:
                txn.cursor(self._tables[number][table]).putmulti(items, append=True)

    def finish(self) -> str:
        with _explained(self.folder):
            for part in self._parts:
                part.sync(True)
        self._close()
        return self.hash.hexdigest()

    def _close(self) -> None:
        parts, self._parts = self._parts, []
        for part in parts:
            part.close()


def _new_file(path: Path) -> lmdb.Environment:
    if path.exists():
        raise UsageError(f"{path}: is there already", "Write serving tables into an empty folder.")
    return lmdb.open(
        str(path), subdir=False, map_size=MAP_BYTES, max_dbs=len(SERVING_TABLES), lock=False, sync=False,
        metasync=False, readahead=False,
    )  # fmt: skip


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _unwritten(folder, error) from error


def _unwritten(folder: Path, error: lmdb.Error) -> PymkError:
    """LMDB reports a full disk as an input/output error, so that the disk itself is asked."""
    free = shutil.disk_usage(folder).free
    what = f"{folder}: cannot write serving tables: {error}"
    if free < FULL_BELOW_BYTES:
        fix = "Free space and run again; the current release is untouched."
        return PymkError(f"{what}; the disk is full: {free / 2**20:.1f} MiB are free", fix)
    fix = f"The disk is not full ({free >> 20:,} MiB are free): look for its errors, a quota or a limit of file size."
    return PymkError(what, fix)
