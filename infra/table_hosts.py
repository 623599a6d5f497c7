"""Hosts of serving tables that many machines read: a Redis or a DynamoDB, behind one small protocol.

A host holds sets of tables, each under a name of its own, and notes: a few small named values that change by
compare-and-swap. What releases the host holds and which of them is served is kept in the notes (infra.loaded_releases).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from infra.errors import UsageError
from infra.kv import KeyValueReader, KeyValueWriter

TIMEOUT_S = 5.0
"""Of one answer of a host, where a caller has no time limit of its own."""


@dataclass(frozen=True)
class TableSet:
    """A set of serving tables on a host. rows: how many each table has, known before they are written."""

    name: str
    rows: Mapping[str, int]


class TableHost(Protocol):
    """Thread-safe. Everything raises StoreError where the host fails or cannot be reached."""

    uri: str

    def notes(self) -> dict[str, bytes]:
        """All notes by name, as they are now."""
        ...

    def note(self, name: str) -> bytes | None: ...

    def swap(self, name: str, expected: bytes | None, new: bytes | None) -> bool:
        """Writes a note if it still is what was expected; None is no note. Atomic: of several writers one wins."""
        ...

    def reader(self, tables: TableSet) -> KeyValueReader:
        """Reads a set of tables that was written whole; one that is gone raises StoreError when it is read."""
        ...

    def writer(self, tables: TableSet) -> KeyValueWriter:
        """Writes a new set of tables, which is readable once finished; where that never comes, `drop` it."""
        ...

    def drop(self, tables: TableSet) -> None:
        """Removes a set of tables, whole or not; one that is not there is no error."""
        ...

    def check_room(self, size_bytes: int) -> None:
        """Raises StoreError where the host says that so much more will not fit, or would not be kept."""
        ...

    def close(self) -> None: ...


def open_host(uri: str, timeout_s: float = TIMEOUT_S) -> TableHost:
    """Opens `redis://host:port/db`, `redis+cluster://host:port` or `dynamodb://prefix`. Connects when it is first used.

    timeout_s: of one answer. Raises UsageError for an address that names no host of tables.
    """
    from infra.redis_connection import is_cluster, is_redis, shown

    if is_redis(uri) or is_cluster(uri):
        from infra.redis_tables import RedisHost

        return RedisHost(uri, timeout_s)
    if urlsplit(uri).scheme == "dynamodb":
        from infra.dynamo_tables import DynamoHost

        return DynamoHost(uri, timeout_s)
    raise UsageError(f"{shown(uri)}: no host of serving tables", "Give redis://host:port/db or dynamodb://name.")
