"""Live facts in a folder: one small LMDB that all workers of a machine share.

What a request brings, its ids, its place in the log and what it changes, is one synced transaction: once it returns, it
outlives a kill of the process or the machine, and every worker sees it at its next read. Readers take no locks.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb

from infra import live_log
from infra.errors import StoreError
from infra.events import OUTCOMES, Event, Refusal
from infra.live_facts import BLOCKED, ERASED_PERSON, REUSED_ID, Erased, LogBatch, ViewerFacts
from infra.live_hidden import Hidden, change_state, erased_people, forget_state
from infra.live_log import now_us
from infra.live_records import BLOCKS, CONNECTION, MOST_RECORDS, SHOWN, Change, Expiry, changes_of, facts_of
from infra.live_tables import (
    HIDDEN_HEAD,
    Place,
    Tables,
    Transaction,
    full,
    hidden_version,
    pack_id,
    pack_number,
    unpack_id,
    unpack_number,
)
from infra.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between looks whether another file was put in the place of the one that is open."""
GRACE_S = 1.0
"""Until a file that was replaced is closed, as reads of it may still run; meanwhile nothing is read."""
FULL_FOR_OUTCOMES, FULL = 0.8, 0.9
"""Shares of the room: once taken, outcomes and then all events are refused. To export and to erase needs room too."""

_NEVER = pack_number(0)


class _Opened(NamedTuple):
    tables: Tables
    hidden: Hidden


class LmdbLiveFacts:
    """See infra.live_facts.LiveStore. The file is opened at first use, and tried again where that failed.

    One that is replaced, by a copy or after a loss, is noticed within LOOK_S, and the new one is opened.
    """

    def __init__(self, folder: Path, max_bytes: int, expiry: Expiry) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._expiry = expiry
        self._opened: _Opened | None = None
        self._replaced: Tables | None = None
        self._look_at_s = self._close_at_s = 0.0
        self._closed = False
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: Path, settings: Settings) -> "LmdbLiveFacts":
        return cls(folder, settings.events.max_mib << 20, Expiry.of(settings))

    def of(self, viewer: int) -> ViewerFacts:
        tables, hidden = self._current()
        try:
            with tables.env.begin() as txn:
                return self._read(tables, hidden, txn, viewer)
        except lmdb.Error:  # once more, slowly, with what helps and with errors that say what to do
            with tables.reading() as txn:
                return self._read(tables, hidden, txn, viewer)

    def _read(self, tables: Tables, hidden: Hidden, txn: Transaction, viewer: int) -> ViewerFacts:
        key = pack_id(viewer)
        head = txn.get(HIDDEN_HEAD, b"", db=tables.meta)
        if head != hidden.head:
            hidden.follow(tables, txn)
        # Another thread may have followed a later state: who is hidden may be newer than the version, never older.
        people, changed, version = hidden.people, hidden_version(head), tables.salt << 64
        seen = txn.get(key, db=tables.versions)
        if seen is None:
            return ViewerFacts({}, people, {}, viewer in people, version, changed)
        oldest = self._expiry.oldest(now_us())
        return facts_of(tables.records(txn, key), people, viewer, version | unpack_number(seen), oldest, changed)

    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        tables = self._tables()
        refused: dict[int, Refusal] = {}
        with tables.writing() as txn:
            self._refuse_when_full(tables, txn, events)
            head = tables.head(txn)
            last = head.last
            for place, event in enumerate(events):
                known = live_log.find_id(tables, txn, event)
                if known is not None:
                    if known != event.content():
                        refused[place] = REUSED_ID
                elif self._names_erased(tables, txn, event):
                    refused[place] = ERASED_PERSON
                else:
                    last += 1
                    self._apply(tables, txn, last, event)
            if last > head.last:
                tables.put_head(txn, head._replace(last=last))
        return refused

    @staticmethod
    def _refuse_when_full(tables: Tables, txn: Transaction, events: Sequence[Event]) -> None:
        """Leaves room for what must not wait: facts that bar when there is none for showings, exports after both."""
        most = FULL if any(event.type not in OUTCOMES for event in events) else FULL_FOR_OUTCOMES
        if tables.fill(txn) > most:
            raise full(tables.path)

    @staticmethod
    def _names_erased(tables: Tables, txn: Transaction, event: Event) -> bool:
        named = (event.user_id,) if event.other_id is None else (event.user_id, event.other_id)
        return any(txn.get(pack_id(person), db=tables.erased) is not None for person in named)

    def _apply(self, tables: Tables, txn: Transaction, number: int, event: Event) -> None:
        live_log.append(tables, txn, number, event)
        if event.other_id is None:
            change_state(tables, txn, number, event.user_id, event.type, event.at_us)
            return
        for change in changes_of(event):
            if tables.merge(txn, change, self._expiry.fatigue_us):
                self._note(tables, txn, number, change)

    def _note(self, tables: Tables, txn: Transaction, number: int, change: Change) -> None:
        """Lets readers know that there are records, and whether they bar."""
        key = pack_id(change.viewer)
        if change.barring:
            txn.put(key, pack_number(number), db=tables.versions)
            return
        txn.put(key, _NEVER, db=tables.versions, overwrite=False)
        cursor = txn.cursor(tables.pairs)
        if cursor.set_key(key) and cursor.count() > MOST_RECORDS:
            _forget_shown(tables, txn, change.viewer)

    def unexported(self, most: int) -> LogBatch | None:
        tables = self._tables()
        with tables.reading() as txn:
            return live_log.unexported(tables, txn, most)

    def exported(self, batch: LogBatch, keep_days: int) -> None:
        tables = self._tables()
        live_log.mark_exported(tables, int(batch.mark), now_us())
        with tables.reading() as txn:
            crowded = tables.fill(txn) > FULL_FOR_OUTCOMES
        # Where there is little room, new facts matter more than whether an event of old is told from a new one.
        if crowded or not keep_days:
            live_log.trim(tables, 0, now_us())
        else:
            live_log.trim(tables, keep_days, batch.trusted_us(now_us()))

    def ended_at(self, pairs: Sequence[tuple[str, int, int]]) -> list[int | None]:
        tables = self._tables()
        with tables.reading() as txn:
            found = [
                tables.record(txn, user, other, BLOCKS if fact == BLOCKED else CONNECTION)
                for fact, user, other in pairs
            ]
        return [record[0] if record is not None and not record[1] else None for record in found]

    def erase(self, user_id: int, at_us: int) -> Erased:
        tables = self._tables()
        with tables.writing() as txn:  # from here on nothing new of them is stored
            head = tables.head(txn)
            number = head.last + 1
            key = pack_id(user_id)
            if txn.get(key, db=tables.erased) is None:
                txn.put(key, pack_number(at_us), db=tables.erased)
            tables.put_head(txn, head._replace(last=number))
            tables.put_hidden_head(txn, tables.hidden_head(txn)._replace(erased=number))
            rows = {"state": forget_state(tables, txn, user_id)}
            tables.drop_earlier(txn)
        viewers = self._viewers_of(tables, user_id)
        with tables.writing() as txn:
            rows["own facts"] = _forget_viewer(tables, txn, key)
        rows["facts of others"] = 0
        for viewer in viewers:
            with tables.writing() as txn:
                rows["facts of others"] += tables.forget(txn, viewer, user_id)
        rows["events in the log"] = live_log.remove_person(tables, user_id)
        return Erased(rows, viewers)

    @staticmethod
    def _viewers_of(tables: Tables, person: int) -> list[int]:
        """Everybody who has a record of a person: a look at all records, as erasures are rare."""
        found: set[int] = set()
        packed = pack_id(person)
        with tables.reading() as txn:
            for viewer, record in txn.cursor(tables.pairs):
                if record.startswith(packed):
                    found.add(unpack_id(viewer))
        return sorted(found)

    def knows(self, user_id: int) -> bool:
        tables, key = self._tables(), pack_id(user_id)
        with tables.reading() as txn:
            own = (tables.erased, tables.people, tables.pairs)
            if any(txn.get(key, db=one) is not None for one in own):
                return True
        return bool(self._viewers_of(tables, user_id)) or live_log.names_person(tables, user_id)

    def erased(self) -> Mapping[int, int]:
        tables = self._tables()
        with tables.reading() as txn:
            return erased_people(tables, txn)

    def forget_expired(self, told_us: int) -> int:
        tables, gone = self._tables(), 0
        oldest = self._expiry.oldest(min(now_us(), told_us))
        place: Place | None = None
        while True:
            with tables.writing() as txn:
                place, found = tables.forget_expired(txn, place, oldest)
            gone += found
            if place is None:
                return gone

    def close(self) -> None:
        with self._lock:
            opened, self._opened, self._closed = self._opened, None, True
            replaced, self._replaced = self._replaced, None
        for tables in (opened.tables if opened else None, replaced):
            if tables is not None:
                tables.release()

    def _tables(self) -> Tables:
        return self._current().tables

    def _current(self) -> _Opened:
        opened = self._opened
        if opened is None:
            return self._open()
        if time.monotonic() < self._look_at_s:
            return opened
        return self._looked_at(opened)

    def _looked_at(self, opened: _Opened) -> _Opened:
        """The same, unless another file is in its place: then it is left, and StoreError raised until it is closed."""
        self._look_at_s = time.monotonic() + LOOK_S
        if not opened.tables.replaced():
            return opened
        with self._lock:
            if self._opened is opened:
                log.error("%s: another file is in its place, and is opened", opened.tables.path)
                self._opened, self._replaced = None, opened.tables
                self._close_at_s = time.monotonic() + GRACE_S
        return self._open()

    def _open(self) -> _Opened:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.folder}: live facts were closed")
            if self._replaced is not None:
                if time.monotonic() < self._close_at_s:
                    raise StoreError(f"{self.folder}: live facts were replaced, and are opened in a moment")
                self._replaced.release()
                self._replaced = None
            if self._opened is None:
                self._opened = _Opened(Tables.open(self.folder, self._max_bytes), Hidden())
                self._look_at_s = time.monotonic() + LOOK_S
            return self._opened


def _forget_viewer(tables: Tables, txn: Transaction, key: bytes) -> int:
    txn.delete(key, db=tables.versions)
    cursor = txn.cursor(tables.pairs)
    if not cursor.set_key(key):
        return 0
    count = int(cursor.count())
    cursor.delete(dupdata=True)
    return count


def _forget_shown(tables: Tables, txn: Transaction, viewer: int) -> None:
    """Forgets the older half of those who were shown to a viewer."""
    shown = [record for record in tables.records(txn, pack_id(viewer)) if record[2] == SHOWN]
    shown.sort(key=lambda record: record[3])
    for _, other, relation, _, _ in shown[: len(shown) // 2]:
        tables.forget(txn, viewer, other, relation)
