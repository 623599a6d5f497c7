"""The log of events in the LMDB of live facts: appended, exported in batches, and trimmed after its export."""

import struct
import time
from collections.abc import Callable, Iterator

from infra.events import EVENT_TYPES, Event
from infra.live_facts import LogBatch, LoggedEvent
from infra.live_records import CODES, DAY_US
from infra.live_tables import Tables, Transaction, pack_number, unpack_number

_ENTRY = struct.Struct(">BBqqQI16s")
_ID = struct.Struct(">Q8s")
TRIMMED_AT_ONCE = 10_000
"""Entries that one transaction removes: events wait for no longer one."""


def find_id(tables: Tables, txn: Transaction, event: Event) -> bytes | None:
    """The digest of the event that was stored under this event's id, None for a new id."""
    found = txn.get(event.key(), db=tables.ids)
    return bytes(_ID.unpack(found)[1]) if found else None


def append(tables: Tables, txn: Transaction, number: int, event: Event) -> None:
    key = event.key()
    other = event.other_id
    entry = _ENTRY.pack(
        CODES[event.type], other is not None, event.user_id, other or 0, event.at_us, event.position or 0, key
    )
    txn.put(pack_number(number), entry, db=tables.log, append=True)
    txn.put(key, _ID.pack(number, event.content()), db=tables.ids)


def unexported(tables: Tables, txn: Transaction, most: int) -> LogBatch | None:
    events: list[LoggedEvent] = []
    cursor = txn.cursor(tables.log)
    first = last = 0
    if cursor.set_range(pack_number(tables.head(txn).exported + 1)):
        for key, entry in cursor:
            last = unpack_number(key)
            first = first or last
            events.append(_logged(entry))
            if len(events) == most:
                break
    return LogBatch(f"{first:020d}", events, str(last)) if events else None


def _logged(entry: bytes) -> LoggedEvent:
    code, has_other, user, other, at, position, _ = _ENTRY.unpack(entry)
    return LoggedEvent(EVENT_TYPES[code], user, other if has_other else None, at, position or None)


def mark_exported(tables: Tables, last: int, now_us: int) -> None:
    with tables.writing() as txn:
        head = tables.head(txn)
        if last > head.exported:
            tables.put_head(txn, head._replace(exported=last))
            txn.put(pack_number(last), pack_number(now_us), db=tables.exports)


def trim(tables: Tables, keep_days: int, now_us: int) -> int:
    """Deletes the entries, and their ids, that were exported more than `keep_days` ago; returns how many."""
    with tables.reading() as txn:
        old = [unpack_number(last) for last, at in txn.cursor(tables.exports)
               if unpack_number(at) <= now_us - keep_days * DAY_US]  # fmt: skip
    if not old:
        return 0
    gone = remove(tables, lambda number, entry: number <= old[-1])
    with tables.writing() as txn:
        for last in old:
            txn.delete(pack_number(last), db=tables.exports)
    return gone


def remove_person(tables: Tables, person: int) -> int:
    """Deletes every entry that names a person; returns how many."""

    def names(number: int, entry: LoggedEvent) -> bool:
        return person in (entry.user_id, entry.other_id)

    return remove(tables, names, whole=True)


def remove(tables: Tables, doomed: Callable[[int, LoggedEvent], bool], whole: bool = False) -> int:
    """Deletes entries with their ids, a bounded number at a time. whole: looks past the first that stays."""
    gone = 0
    for keys in _chunks(_chosen(tables, doomed, whole)):
        with tables.writing() as txn:
            for key in keys:
                entry = txn.pop(key, db=tables.log)
                if entry is not None:
                    txn.delete(_ENTRY.unpack(entry)[-1], db=tables.ids)
                    gone += 1
    return gone


def _chosen(tables: Tables, doomed: Callable[[int, LoggedEvent], bool], whole: bool) -> list[bytes]:
    found = []
    with tables.reading() as txn:
        for key, entry in txn.cursor(tables.log):
            if doomed(unpack_number(key), _logged(entry)):
                found.append(key)
            elif not whole:
                break
    return found


def _chunks(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), TRIMMED_AT_ONCE):
        yield keys[start : start + TRIMMED_AT_ONCE]


def now_us() -> int:
    return time.time_ns() // 1000
