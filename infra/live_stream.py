"""The log of events as a Redis Stream: exported by a consumer group, trimmed after its export.

Other groups may read the stream as well; entries leave it `events.keep_days` after their export, read or not.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import redis

from infra.live_facts import LogBatch, LoggedEvent
from infra.live_records import DAY_US
from infra.live_scripts import PREFIX
from infra.redis_connection import connect, connect_cluster, is_cluster

STREAM, EXPORTS, HEAD = f"{PREFIX}events", f"{PREFIX}exports", f"{PREFIX}head"
GROUP = CONSUMER = "export"
AT_ONCE = 1000

Entry = tuple[bytes, dict[bytes, bytes]]


class Link:
    """A client of a Redis, or of a cluster, which is connected when it is first used and again until it answers."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        self._uri, self._timeout_s = uri, timeout_s
        self._lock = threading.Lock()
        self._connected: Any = None if is_cluster(uri) else connect(uri, timeout_s)

    @property
    def client(self) -> Any:
        """Raises StoreError where no node of a cluster answers."""
        if self._connected is None:
            with self._lock:
                self._connected = self._connected or connect_cluster(self._uri, self._timeout_s)
        return self._connected

    def close(self) -> None:
        if self._connected is not None:
            self._connected.close()


class EventStream:
    """What the client raises is the caller's to explain."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def _client(self) -> Any:
        return self._link.client

    def unexported(self, most: int) -> LogBatch | None:
        """Entries that were handed out and not acknowledged, else new ones, which count as handed out from now on."""
        self._make_group()
        found = self._handed_out(most) or self._read(">", most)
        entries = [(entry, fields) for entry, fields in found if fields]
        if not entries:
            return None
        born = (self._client.hget(HEAD, "born") or b"").decode()
        name = f"{born}-{_name_of(found[0][0])}"
        return LogBatch(name, [_logged(fields) for _, fields in entries], entries[-1][0].decode())

    def _handed_out(self, most: int) -> list[Entry]:
        """What was handed out before and is not yet in the lake, with the places of what was erased since."""
        while found := self._read("0", most):
            if any(fields for _, fields in found):
                return found
            self._client.xack(STREAM, GROUP, *(entry for entry, _ in found))
        return []

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _read(self, start: str, most: int) -> list[Entry]:
        """Entries, without fields where they were deleted."""
        found = self._client.xreadgroup(GROUP, CONSUMER, {STREAM: start}, count=most)
        return found[0][1] if found else []

    def exported(self, batch: LogBatch, keep_days: int, now_us: int) -> None:
        while pending := self._client.xpending_range(STREAM, GROUP, "-", batch.mark, AT_ONCE):
            self._client.xack(STREAM, GROUP, *(one["message_id"] for one in pending))
        self._client.zadd(EXPORTS, {batch.mark: now_us})
        self._trim(batch.trusted_us(now_us) - keep_days * DAY_US if keep_days else now_us)

    def _trim(self, exported_before_us: int) -> None:
        """Removes what was exported by then, and the ids of those events."""
        marks = self._client.zrangebyscore(EXPORTS, "-inf", exported_before_us)
        if not marks:
            return
        self._delete(lambda fields: True, max(marks, key=_order_of).decode())
        self._client.zrem(EXPORTS, *marks)

    def remove_person(self, person: int) -> int:
        """Deletes every entry that names a person; returns how many."""
        return self._delete(lambda fields: _names(fields, person), "+")

    def names_person(self, person: int) -> bool:
        """Whether any entry names a person."""
        return any(_names(fields, person) for entries in self._chunks("+") for _, fields in entries)

    def _delete(self, doomed: Callable[[dict[bytes, bytes]], bool], last: str) -> int:
        gone = 0
        for entries in self._chunks(last):
            chosen = [(entry, fields) for entry, fields in entries if doomed(fields)]
            if chosen:
                self._client.delete(*(f"{PREFIX}id:{fields[b'key'].decode()}" for _, fields in chosen))
                gone += self._client.xdel(STREAM, *(entry for entry, _ in chosen))
        return gone

    def _chunks(self, last: str) -> Iterator[list[Entry]]:
        start = "-"
        while entries := self._client.xrange(STREAM, start, last, count=AT_ONCE):
            yield entries
            start = f"({entries[-1][0].decode()}"


def _names(fields: dict[bytes, bytes], person: int) -> bool:
    return str(person).encode() in (fields[b"user"], fields[b"other"])


def _order_of(entry: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry.partition(b"-")
    return int(milliseconds), int(number)


def _name_of(entry: bytes) -> str:
    milliseconds, number = _order_of(entry)
    return f"{milliseconds:020d}-{number:06d}"


def _logged(fields: dict[bytes, bytes]) -> LoggedEvent:
    other, position, model = fields[b"other"], fields[b"position"], fields.get(b"model")
    return LoggedEvent(
        fields[b"type"].decode(),
        int(fields[b"user"]),
        int(other) if other else None,
        int(fields[b"at"]),
        int(position) if position else None,
        model.decode() if model else None,
    )
