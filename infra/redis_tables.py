"""Serving tables in Redis: each table in a number of hashes, a row a field; one round trip reads any number of rows.

Hashes rather than a key a row: a set of tables is removed by naming its keys, and a thousand rows are few commands.
In a cluster the hashes spread over the nodes.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import StoreError, UsageError
from infra.kv import SERVING_TABLES, Int64, RowsHash, encode_key, encode_keys, partition_of, partitions_of
from infra.redis_connection import (
    connect,
    connect_cluster,
    evicting_policy,
    explained,
    is_cluster,
    memory_of,
    shown,
)
from infra.table_hosts import TableSet

Client = Any
"""A redis.Redis or RedisCluster, whose own types allow for answers as text, which ours never give."""
ROWS_OF_HASH = 8192
LEAST_HASHES, MOST_HASHES = 16, 4096
"""Of a table: about one for each ROWS_OF_HASH rows of the largest."""
NOTES = "pymk:releases"
"""The hash of the host's notes."""
MARK = b"whole"
"""A field of each hash, written last and no key of a row: rows that went with a node of a cluster are missed by it."""
WHOLE, MARKED = b"1", b"2"
"""Of the key that is there once all hashes are; those of earlier versions have no marks."""
FLUSH_BYTES = 4 << 20
"""Sent to Redis at a time while loading."""
OVERHEAD = 1.0
"""Memory of Redis for a byte of a release's files, which have their own waste: 0.8 was measured."""

_SWAP = """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if (found or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
"""
"""Compare and swap of a field; an empty text stands for none, as no note is empty."""


class RedisHost:
    """See infra.table_hosts.TableHost."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        self.uri = shown(uri)
        self._uri, self._timeout_s = uri, timeout_s
        self._lock = threading.Lock()
        self._connected: Client = None if is_cluster(uri) else connect(uri, timeout_s)

    @property
    def _client(self) -> Client:
        """A cluster's nodes are learnt when one is first asked, and asked again until one answers."""
        if self._connected is None:
            with self._lock:
                self._connected = self._connected or connect_cluster(self._uri, self._timeout_s)
        return self._connected

    def notes(self) -> dict[str, bytes]:
        with explained(self.uri):
            found: dict[bytes, bytes] = self._client.hgetall(NOTES)
        return {name.decode(): note for name, note in found.items()}

    def note(self, name: str) -> bytes | None:
        with explained(self.uri):
            note: bytes | None = self._client.hget(NOTES, name)
        return note

    def swap(self, name: str, expected: bytes | None, new: bytes | None) -> bool:
        with explained(self.uri):
            return bool(self._client.eval(_SWAP, 1, NOTES, name, expected or b"", new or b""))

    def reader(self, tables: TableSet) -> "RedisTables":
        return RedisTables(self._client, self.uri, tables)

    def writer(self, tables: TableSet) -> "RedisWriter":
        return RedisWriter(self._client, self.uri, tables)

    def drop(self, tables: TableSet) -> None:
        keys = Keys(tables)
        with explained(self.uri):
            self._client.unlink(keys.whole)  # first, so that no reader takes what is missing for an unknown user
            for names in keys.hashes.values():
                self._client.unlink(*names)

    def check_room(self, size_bytes: int) -> None:
        with explained(self.uri):
            nodes = memory_of(self._client, self._uri)
        if policy := evicting_policy(nodes):
            fix = "Set its maxmemory-policy to noeviction or volatile-lru: rows would vanish one by one."
            raise StoreError(f"{self.uri}: evicts any key when memory is short ({policy})", fix)
        if all(memory.get("maxmemory") for memory in nodes):
            needed = int(size_bytes * OVERHEAD)
            free = sum(int(memory["maxmemory"]) - int(memory["used_memory"]) for memory in nodes)
            if needed > free:
                fix = "Raise its maxmemory, or load with a smaller --keep."
                raise StoreError(f"{self.uri}: {needed >> 20:,} MiB will not fit in the {free >> 20:,} MiB left", fix)

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()


class Keys:
    """Names of the keys of a set of tables. hashes: of each table. whole: there once all of them are."""

    def __init__(self, tables: TableSet) -> None:
        wanted = max(tables.rows.values(), default=0) // ROWS_OF_HASH
        self.partitions = min(max(LEAST_HASHES, 1 << wanted.bit_length()), MOST_HASHES)
        self.whole = f"pymk:{tables.name}:whole"
        self.hashes = {
            table: [f"pymk:{tables.name}:{table}:{part}" for part in range(self.partitions)] for table in SERVING_TABLES
        }


class RedisTables:
    """Reads what RedisWriter wrote. Its connections are those of the host, which outlives it."""

    def __init__(self, client: Client, uri: str, tables: TableSet) -> None:
        self._client = client
        self._where = f"{uri}, tables {tables.name}"
        self._rows = dict(tables.rows)
        keys = Keys(tables)
        self._hashes, self._partitions, self._whole = keys.hashes, keys.partitions, keys.whole

    def get(self, table: str, key: int) -> bytes | None:
        name = self._names(table)[partition_of(key, self._partitions)]
        with explained(self._where):
            value: bytes | None
            value, mark = self._client.hmget(name, (encode_key(key), MARK))
        if value is None and mark is None:
            self._check_that_they_are_there()
        return value

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        names = self._names(table)
        if not keys:
            return []
        places: dict[int, list[int]] = {}
        for place, part in enumerate(partitions_of(np.array(keys, np.int64), self._partitions).tolist()):
            places.setdefault(part, []).append(place)
        pipeline = self._client.pipeline(transaction=False)
        for part, wanted in places.items():
            pipeline.hmget(names[part], [*(encode_key(keys[place]) for place in wanted), MARK])
        with explained(self._where):
            answers = pipeline.execute()
        found: list[bytes | None] = [None] * len(keys)
        for wanted, (*values, mark) in zip(places.values(), answers, strict=True):
            if mark is None and None in values:
                self._check_that_they_are_there()
            for place, value in zip(wanted, values, strict=True):
                found[place] = value
        return found

    def count(self, table: str) -> int:
        self._names(table)
        return self._rows.get(table, 0)

    def close(self) -> None:
        self._hashes = {}

    def _names(self, table: str) -> list[str]:
        try:
            return self._hashes[table]
        except KeyError:
            if not self._hashes:
                raise StoreError(f"{self._where}: read after close") from None
            raise UsageError(f"{table!r}: no such table", f"Tables: {', '.join(self._hashes)}.") from None

    def _check_that_they_are_there(self) -> None:
        """Asked for a row that is in a hash without a mark: one that went with its release, with a Redis that was
        emptied or with a node of a cluster would pass for an unknown user, of whom nobody knows whom they must not be
        shown."""
        with explained(self._where):
            there = self._client.get(self._whole)
        if there != WHOLE:
            raise StoreError(f"{self._where}: are gone", "Load the release again with `pymk release load`.")


class RedisWriter:
    """Writes a new set of tables through one connection; see infra.kv.KeyValueWriter."""

    def __init__(self, client: Client, uri: str, tables: TableSet) -> None:
        self._client = client
        self._where = f"{uri}, tables {tables.name}"
        self._keys = Keys(tables)
        self.hash = RowsHash()

    def put(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        self.hash.update(table, keys, values, ends)
        first = 0
        while first < len(keys):
            start = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, start + FLUSH_BYTES, "right")))
            self._send(table, keys[first:last], values[start : int(ends[last - 1])], ends[first:last] - start)
            first = last

    def finish(self) -> str:
        """Raises StoreError where Redis holds other numbers of rows than were written."""
        for table, names in self._keys.hashes.items():
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.hlen(name)
            with explained(self._where):
                held = sum(pipeline.execute())
            written = self.hash.rows.get(table, 0)
            if held != written:
                raise StoreError(f"{self._where}: {table} holds {held:,} rows of {written:,}", "Load again.")
        pipeline = self._client.pipeline(transaction=False)
        for names in self._keys.hashes.values():
            for name in names:
                pipeline.hset(name, MARK, b"")
        with explained(self._where):
            pipeline.execute()
            self._client.set(self._keys.whole, MARKED)
        return self.hash.hexdigest()

    def _send(self, table: str, keys: Int64, values: npt.NDArray[np.uint8], ends: Int64) -> None:
        """One round trip."""
        parts = partitions_of(keys, self._keys.partitions)
        encoded = encode_keys(keys).tobytes()
        data = values.tobytes()
        starts = np.concatenate([[0], ends[:-1]])
        order = np.argsort(parts, kind="stable")
        rows = zip(order.tolist(), parts[order].tolist(), starts[order].tolist(), ends[order].tolist(), strict=True)
        fields: dict[int, list[bytes]] = {}
        for row, part, start, end in rows:
            fields.setdefault(part, []).extend((encoded[8 * row : 8 * row + 8], data[start:end]))
        pipeline = self._client.pipeline(transaction=False)
        for part, cells in fields.items():
            pipeline.hset(self._keys.hashes[table][part], items=cells)
        with explained(self._where):
            pipeline.execute()
