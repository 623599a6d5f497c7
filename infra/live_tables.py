"""The LMDB file of live facts: its tables, how rows are packed, and one handle a process.

| table | key -> value |
|---|---|
| meta | format; drawn when the file was made, so that it is told from another; the last number given to an event; the
  last exported; the last changes of who is hidden |
| log | number -> event, in the order of being recorded |
| ids | digest of an event id -> number, digest of the event |
| pairs | viewer -> records (other, relation, at, value), many a key |
| versions | viewer -> number of the last event that may have changed whom they may see, 0 for none |
| people, changed | person -> state; number of the change -> person |
| erased | person -> when |
| exports | last exported number -> when it was exported |
"""

import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, TypeAlias

import lmdb

from infra.errors import StoreError
from infra.live_records import DISMISSAL, SHOWN, Change, Record, merged
from infra.live_turn import Turn

FORMAT = b"1"
TABLES = ("meta", "log", "ids", "versions", "people", "changed", "erased", "exports")
EARLIER = (b"queue", b"queued")
"""Tables of earlier versions, which nothing reads and which name people."""
FILE = "live.lmdb"
MAX_READERS = 2048
"""Reading transactions of all workers together."""

Transaction: TypeAlias = "lmdb.Transaction[bytes]"

LOOKED_AT_ONCE = 50_000
"""Records that one transaction looks at for what has expired: events wait for no longer one."""
Place = tuple[bytes, bytes]
"""Of a record: its viewer and itself, packed."""

_RECORD = struct.Struct(">qBQH")
_FOUND = struct.Struct(">qqBQH")
_PLACE = struct.Struct(">qB")
_ID = struct.Struct(">q")
_NUMBER = struct.Struct(">Q")
HEAD, HIDDEN_HEAD, FORMAT_KEY, BORN_KEY = b"head", b"hidden", b"format", b"born"
_HEAD = struct.Struct(">QQ")
_HIDDEN_HEAD = struct.Struct(">QQ")


pack_id = _ID.pack


def unpack_id(packed: bytes) -> int:
    return int(_ID.unpack(packed)[0])


def pack_number(number: int) -> bytes:
    return _NUMBER.pack(number)


def unpack_number(packed: bytes) -> int:
    return int(_NUMBER.unpack(packed)[0])


class Head(NamedTuple):
    """last: number of the newest event. exported: number up to which the log is in the lake."""

    last: int = 0
    exported: int = 0


class HiddenHead(NamedTuple):
    """Numbers of the last change of somebody's state, and of the last erasure."""

    changed: int = 0
    erased: int = 0

    @property
    def version(self) -> int:
        return max(self)


def hidden_version(head: bytes) -> int:
    """Number of the last change of who is hidden, by the row at HIDDEN_HEAD, which is empty before the first."""
    return max(_HIDDEN_HEAD.unpack(head)) if head else 0


class Tables:
    """One open LMDB environment. `table.meta` … are its databases; LMDB forbids a process a second handle on a file."""

    _open: dict[Path, "Tables"] = {}  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.users = 0
        with explained(path):
            path.parent.mkdir(exist_ok=True)  # not its parents: they may be a disk that is not mounted yet
            self.env = lmdb.open(
                str(path), subdir=False, map_size=max_bytes, max_dbs=1 + len(TABLES) + len(EARLIER),
                max_readers=MAX_READERS, max_spare_txns=16, mode=0o600,
            )  # fmt: skip
            try:
                self.env.reader_check()
                self._turn = Turn(path)
                self._open_tables()
            except BaseException:
                self.env.close()
                raise

    meta: "lmdb._Database"
    log: "lmdb._Database"
    ids: "lmdb._Database"
    versions: "lmdb._Database"
    people: "lmdb._Database"
    changed: "lmdb._Database"
    erased: "lmdb._Database"
    exports: "lmdb._Database"
    salt: int
    """Of this file: it tells its versions from those of another in its place."""

    def _open_tables(self) -> None:
        """Makes those that are missing, when it is this one's turn: LMDB would wait for a hung writer for ever, and
        with it every thread of this process."""
        with self._turn.taken(), self._begin(write=True) as txn:
            self._refuse_strange_lock(txn)
            self.pairs = self.env.open_db(b"pairs", txn, dupsort=True, dupfixed=True)
            for name in TABLES:
                setattr(self, name, self.env.open_db(name.encode(), txn))
            found = txn.get(FORMAT_KEY, db=self.meta)
            if found is None:
                txn.put(FORMAT_KEY, FORMAT, db=self.meta)
                txn.put(BORN_KEY, token_hex(8).encode(), db=self.meta)
            elif found != FORMAT:
                raise StoreError(f"{self.path}: live facts of format {found!r}, this code reads {FORMAT!r}")
            self._file = os.stat(self.path)
            self.salt = zlib.crc32(f"{self.born(txn)} {self._file.st_dev} {self._file.st_ino}".encode())

    def _refuse_strange_lock(self, txn: Transaction) -> None:
        """A file put in another's place without its lock file is numbered as that one, while somebody has it open: what
        is written then may be lost at the next start."""
        if txn.id() != self.env.info()["last_txnid"] + 1:
            fix = "Stop what has the earlier file open; servers leave it by themselves within seconds."
            raise StoreError(f"{self.path}: the lock file beside it is in use for another file", fix)

    @classmethod
    def open(cls, folder: Path, max_bytes: int) -> "Tables":
        path = (folder.expanduser() / FILE).resolve()
        with cls._lock:
            tables = cls._open.get(path)
            if tables is None or tables.replaced():
                tables = cls._open[path] = cls(path, max_bytes)
            tables.users += 1
            return tables

    def release(self) -> None:
        with self._lock:
            self.users -= 1
            if self.users == 0:
                if self._open.get(self.path) is self:
                    del self._open[self.path]
                self._turn.close()
                self.env.close()

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        with explained(self.path), self._begin(write=False) as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Synced to the disk when the block ends; nothing of it is kept when the block raises."""
        with explained(self.path), self._turn.taken():
            self._refuse_if_replaced()
            try:
                with self._begin(write=True) as txn:
                    yield txn
            except lmdb.MapFullError:
                self.env.reader_check()  # workers that were killed while they read hold pages back
                raise

    def _refuse_if_replaced(self) -> None:
        """What is written to a file that was deleted, or moved to put a copy in its place, would be lost."""
        if not os.path.samestat(os.stat(self.path), self._file):
            fix = "Send the events again: servers open that one within seconds."
            raise StoreError(f"{self.path}: another file is in its place", fix)

    def replaced(self) -> bool:
        """Whether another file is where this one was; one that was only taken away is still the best that is known."""
        try:
            return not os.path.samestat(os.stat(self.path), self._file)
        except OSError:
            return False

    def _begin(self, write: bool) -> Transaction:
        try:
            return self.env.begin(write=write)
        except lmdb.MapResizedError:  # another process opened it with a larger events.max_mib
            self.env.set_mapsize(0)
            return self.env.begin(write=write)

    def drop_earlier(self, txn: Transaction) -> None:
        """Removes tables that only earlier versions knew, where there are some."""
        for name in EARLIER:
            with suppress(lmdb.NotFoundError):
                txn.drop(self.env.open_db(name, txn, create=False))

    def fill(self, txn: Transaction) -> float:
        """Share of the room that rows take; pages that were freed count as free, whatever the size of the file."""
        page_bytes = pages = 0
        for table in (self.pairs, *(getattr(self, name) for name in TABLES)):
            stat = txn.stat(table)
            page_bytes = stat["psize"]
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * page_bytes / int(self.env.info()["map_size"])

    def born(self, txn: Transaction) -> str:
        """Drawn when the file was made; empty in one from before that was done."""
        return (txn.get(BORN_KEY, db=self.meta) or b"").decode()

    def head(self, txn: Transaction) -> Head:
        found = txn.get(HEAD, db=self.meta)
        return Head(*_HEAD.unpack(found)) if found else Head()

    def put_head(self, txn: Transaction, head: Head) -> None:
        txn.put(HEAD, _HEAD.pack(*head), db=self.meta)

    def hidden_head(self, txn: Transaction) -> HiddenHead:
        found = txn.get(HIDDEN_HEAD, db=self.meta)
        return HiddenHead(*_HIDDEN_HEAD.unpack(found)) if found else HiddenHead()

    def put_hidden_head(self, txn: Transaction, head: HiddenHead) -> None:
        txn.put(HIDDEN_HEAD, _HIDDEN_HEAD.pack(*head), db=self.meta)

    def records(self, txn: Transaction, viewer: bytes) -> Iterator[Record]:
        """What a viewer's facts are; those of one person by relation."""
        packed = txn.cursor(self.pairs).getmulti([viewer], dupdata=True, dupfixed_bytes=_RECORD.size, keyfixed=True)
        return _FOUND.iter_unpack(packed)  # type: ignore[return-value]

    def record(self, txn: Transaction, viewer: int, other: int, relation: int) -> tuple[int, int] | None:
        """(at_us, value) of one record."""
        found = self._find(txn.cursor(self.pairs), pack_id(viewer), _PLACE.pack(other, relation))
        return _RECORD.unpack(found)[2:] if found else None

    def merge(self, txn: Transaction, change: Change, fatigue_us: int) -> bool:
        """Merges a change into its viewer's records; false where nothing was changed by it."""
        cursor, viewer = txn.cursor(self.pairs), pack_id(change.viewer)
        place = _PLACE.pack(change.other, change.relation)
        found = self._find(cursor, viewer, place)
        old = _RECORD.unpack(found)[2:] if found else None
        new = merged(old, change, fatigue_us)
        if new == old:
            return False
        if found:
            cursor.delete()
        txn.put(viewer, _RECORD.pack(change.other, change.relation, *new), db=self.pairs)
        return True

    def _find(self, cursor: "lmdb.Cursor[bytes]", viewer: bytes, place: bytes) -> bytes | None:
        """The record at a place of a viewer, with the cursor on it."""
        if cursor.set_range_dup(viewer, place):
            found = cursor.value()
            if found.startswith(place):
                return found
        return None

    def forget(self, txn: Transaction, viewer: int, other: int, relation: int | None = None) -> int:
        """Deletes a viewer's records of another person, all or of one relation; returns how many there were."""
        cursor, key, gone = txn.cursor(self.pairs), pack_id(viewer), 0
        place = pack_id(other) if relation is None else _PLACE.pack(other, relation)
        while (found := self._find(cursor, key, place)) is not None:
            txn.delete(key, found, db=self.pairs)
            gone += 1
        return gone

    def forget_expired(
        self, txn: Transaction, start: Place | None, oldest: tuple[int, int]
    ) -> tuple[Place | None, int]:
        """Deletes dismissals and showings from before the times `oldest`, of a bounded number of records.

        start: where to begin, None for the first. Returns where to go on, None at the end, and how many were deleted.
        """
        cursor = txn.cursor(self.pairs)
        found = cursor.first() if start is None else cursor.set_range_dup(*start) or cursor.set_range(start[0])
        if not found:
            return None, 0
        looked_at = list(islice(cursor, LOOKED_AT_ONCE + 1))
        expired = [one for one in looked_at[:LOOKED_AT_ONCE] if _is_expired(one[1], *oldest)]
        for key, value in expired:
            txn.delete(key, value, db=self.pairs)
        return (looked_at[-1] if len(looked_at) > LOOKED_AT_ONCE else None), len(expired)


def _is_expired(record: bytes, dismissed_after: int, shown_after: int) -> bool:
    _, relation, at, _ = _RECORD.unpack(record)
    return at < (dismissed_after if relation == DISMISSAL else shown_after if relation == SHOWN else 0)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what LMDB and the system raise into a StoreError that says what to do."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise full(path) from error
    except (lmdb.Error, OSError) as error:
        no_room = os.strerror(errno.ENOSPC) in str(error)
        fix = "Free disk space." if no_room else "Check the disk and the rights to the folder; api.facts names it."
        raise StoreError(f"{path}: live facts cannot be used: {error}", fix) from error


def full(path: Path) -> StoreError:
    fix = "Export the events (`pymk events export`), or raise events.max_mib and restart."
    return StoreError(f"{path}: live facts have reached events.max_mib", fix)
