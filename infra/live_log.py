"""The log of events in the LMDB of live facts: appended, exported in batches, and trimmed after its export."""

import struct
from collections.abc import Iterable
from itertools import islice

from infra.events import EVENT_TYPES, Event
from infra.live_facts import LogBatch, LoggedEvent
from infra.live_records import CODES, DAY_US
from infra.live_tables import Tables, Transaction, pack_number, unpack_number
from infra.steady_time import earliest_us

_ENTRY = struct.Struct(">BBqqQI16s")
"""How an entry begins; the name of a model follows where there is one."""
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
    if event.model:
        entry += event.model.encode()
    txn.put(pack_number(number), entry, db=tables.log, append=True)
    txn.put(key, _ID.pack(number, event.content()), db=tables.ids)


def unexported(tables: Tables, txn: Transaction, most: int) -> LogBatch | None:
    """Its name tells whose log it is of and where it begins, though events of it be erased."""
    cursor, first = txn.cursor(tables.log), tables.head(txn).exported + 1
    if not cursor.set_range(pack_number(first)):
        return None
    entries = [*islice(cursor, most)]
    name = f"{tables.born(txn)}-{first:020d}".removeprefix("-")
    return LogBatch(name, [_logged(entry) for _, entry in entries], str(unpack_number(entries[-1][0])))


def _logged(entry: bytes) -> LoggedEvent:
    code, has_other, user, other, at, position, _ = _ENTRY.unpack_from(entry)
    model = bytes(entry[_ENTRY.size :]).decode() or None
    return LoggedEvent(EVENT_TYPES[code], user, other if has_other else None, at, position or None, model)


def mark_exported(tables: Tables, last: int, now_us: int) -> None:
    with tables.writing() as txn:
        head = tables.head(txn)
        if last > head.exported:
            tables.put_head(txn, head._replace(exported=last))
            txn.put(pack_number(last), pack_number(now_us), db=tables.exports)


def trim(tables: Tables, keep_days: int, now_us: int) -> int:
    """Deletes the entries that were exported more than `keep_days` ago, and their ids; returns how many there were."""
    with tables.reading() as txn:
        old = [unpack_number(last) for last, at in txn.cursor(tables.exports)
               if unpack_number(at) <= now_us - keep_days * DAY_US]  # fmt: skip
    if not old:
        return 0
    gone = 0
    while removed := _remove_first(tables, old[-1]):
        gone += removed
    with tables.writing() as txn:
        for last in old:
            txn.delete(pack_number(last), db=tables.exports)
    return gone


def _remove_first(tables: Tables, last: int) -> int:
    """Deletes the first entries up to the last-th, a bounded number; returns how many."""
    with tables.writing() as txn:
        first = islice(txn.cursor(tables.log), TRIMMED_AT_ONCE)
        entries = [(key, entry) for key, entry in first if unpack_number(key) <= last]
        return _remove(tables, txn, entries)


def _remove(tables: Tables, txn: Transaction, entries: Iterable[tuple[bytes, bytes]]) -> int:
    gone = 0
    for key, entry in entries:
        gone += txn.delete(key, db=tables.log)
        txn.delete(_ENTRY.unpack_from(entry)[-1], db=tables.ids)
    return gone


def names_person(tables: Tables, person: int) -> bool:
    """Whether any entry names a person."""
    with tables.reading() as txn:
        return any(person in _logged(entry)[1:3] for _, entry in txn.cursor(tables.log))


def remove_person(tables: Tables, person: int) -> int:
    """Deletes every entry that names a person; returns how many."""
    with tables.reading() as txn:
        named = [(key, entry) for key, entry in txn.cursor(tables.log) if person in _logged(entry)[1:3]]
    gone = 0
    for start in range(0, len(named), TRIMMED_AT_ONCE):
        with tables.writing() as txn:
            gone += _remove(tables, txn, named[start : start + TRIMMED_AT_ONCE])
    return gone


def now_us() -> int:
    """By which facts end and what was exported is old: a clock that jumps lifts nothing early."""
    return earliest_us()
