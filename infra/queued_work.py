"""Work that is done later, by whoever has the time: queued, taken once, and its result kept for a while.

Two forms keep the same promises: a file for the workers of one machine, Redis for a fleet. What waits outlives its
worker, as another takes it; what was being done is lost with the one who did it, and said to be.
"""

import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.errors import StoreError
from infra.redis_connection import is_cluster, is_redis
from infra.steady_time import earliest_us
from infra.store import folder_of

FILE = "queued.sqlite"
ID_BYTES = 16
PATIENCE_S = 2.0
"""Waiting for others who write to the file."""
BESIDE_BYTES = 512
"""What is kept of any work beside its data, roughly."""
QUEUED, TAKEN, DONE = "queued", "taken", "done"


@dataclass(frozen=True, slots=True)
class Work:
    """state: queued, taken or done. age_s: since when it is so. data: of done work its result, else what there is to
    do."""

    state: str
    age_s: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """waiting: work that may wait. kept_bytes: of all work, whether it waits, is being done or is done. life_s: of what
    waits, and again of a result."""

    waiting: int
    kept_bytes: int
    life_s: float


class QueuedWork(Protocol):
    """Thread-safe. Ids cannot be guessed. Everything raises StoreError where the file or the server cannot be used."""

    def put(self, data: bytes, room_bytes: int = 0) -> str | None:
        """The id under which it is found; None where as much waits, or is kept, as may. room_bytes: that its result may
        take, and so has from now on."""
        ...

    def take(self) -> tuple[str, bytes] | None:
        """What waits longest, which nobody else takes then; None where nothing does."""
        ...

    def put_back(self, work_id: str, data: bytes, left_s: float) -> bool:
        """Has work that was taken wait anew, behind the others, as this data; its life goes on. Whether it does: not
        with less left of it, nor of work that is no more."""
        ...

    def finish(self, work_id: str, result: bytes) -> None:
        """Keeps the result, from now on for as long as any; nothing of work that is no more."""
        ...

    def get(self, work_id: str) -> Work | None:
        """None for what there never was, or is no more."""
        ...

    def clear(self) -> int:
        """Forgets all work, in whatever state; how much there was."""
        ...

    def close(self) -> None:
        """For good: what is asked for later raises StoreError, or is as if a new one was opened."""
        ...


def open_queue(uri: str, bounds: Bounds, timeout_s: float) -> QueuedWork:
    """In a folder, or at an address of Redis. timeout_s: for an answer of Redis."""
    if is_redis(uri) or is_cluster(uri):
        from infra.queued_redis import RedisQueue

        return RedisQueue(uri, bounds, timeout_s)
    return FileQueue(folder_of(uri) / FILE, bounds)


def _earliest_s() -> float:
    """A clock that jumps ahead ends nothing."""
    return earliest_us() / 1e6


_TABLES = """
CREATE TABLE IF NOT EXISTS kept (id TEXT UNIQUE, state TEXT, since REAL, ends REAL, bytes INTEGER, data BLOB);
CREATE INDEX IF NOT EXISTS by_state ON kept (state);
CREATE INDEX IF NOT EXISTS by_end ON kept (ends);
CREATE TABLE IF NOT EXISTS total (bytes INTEGER);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS put AFTER INSERT ON kept BEGIN UPDATE total SET bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS finished AFTER UPDATE OF bytes ON kept
    BEGIN UPDATE total SET bytes = bytes + NEW.bytes - OLD.bytes; END;
CREATE TRIGGER IF NOT EXISTS forgotten AFTER DELETE ON kept BEGIN UPDATE total SET bytes = bytes - OLD.bytes; END;
DROP TABLE IF EXISTS work;
"""
"""The last was the table before there were bytes."""


class FileQueue:
    """The file is made by the first work that is put there."""

    def __init__(self, path: Path, bounds: Bounds, clock: Callable[[], float] = _earliest_s) -> None:
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._closed = False

    def put(self, data: bytes, room_bytes: int = 0) -> str | None:
        work_id, now = secrets.token_hex(ID_BYTES), self._clock()
        size, bounds = max(len(data), room_bytes) + BESIDE_BYTES, self._bounds
        with self._using() as db, _at_once(db):
            _forget(db, now)
            (waiting,) = db.execute("SELECT count(*) FROM kept WHERE state = 'queued'").fetchone()
            (kept,) = db.execute("SELECT bytes FROM total").fetchone()
            if waiting >= bounds.waiting or kept + size > bounds.kept_bytes:
                return None
            row = (work_id, now, now + bounds.life_s, size, data)
            db.execute("INSERT INTO kept VALUES (?, 'queued', ?, ?, ?, ?)", row)
        return work_id

    def take(self) -> tuple[str, bytes] | None:
        if self._opened is None and not self._path.exists():
            return None
        with self._using() as db:
            now = self._clock()
            _forget(db, now)
            waits = "FROM kept WHERE state = 'queued' AND ends > ? ORDER BY rowid LIMIT 1"
            if db.execute(f"SELECT 1 {waits}", (now,)).fetchone() is None:  # looking takes no lock
                return None
            found = db.execute(
                f"UPDATE kept SET state = 'taken', since = ? WHERE id = (SELECT id {waits}) RETURNING id, data",
                (now, now),
            ).fetchone()
        return None if found is None else (found[0], found[1])

    def put_back(self, work_id: str, data: bytes, left_s: float) -> bool:
        now = self._clock()
        with self._using() as db:
            done = db.execute(
                "UPDATE kept SET rowid = (SELECT max(rowid) + 1 FROM kept), state = 'queued', since = ?, data = ?"
                " WHERE id = ? AND state = 'taken' AND ends > ?",
                (now, data, work_id, now + left_s),
            )
        return done.rowcount == 1

    def finish(self, work_id: str, result: bytes) -> None:
        now = self._clock()
        with self._using() as db:
            db.execute(
                "UPDATE kept SET state = 'done', since = ?, ends = ?, bytes = ?, data = ? WHERE id = ?",
                (now, now + self._bounds.life_s, len(result) + BESIDE_BYTES, result, work_id),
            )

    def get(self, work_id: str) -> Work | None:
        if self._opened is None and not self._path.exists():
            return None
        now = self._clock()
        with self._using() as db:
            asked = "SELECT state, ? - since, data FROM kept WHERE id = ? AND ends > ?"
            found = db.execute(asked, (now, work_id, now)).fetchone()
        return None if found is None else Work(*found)

    def clear(self) -> int:
        if self._opened is None and not self._path.exists():
            return 0
        with self._using() as db:
            gone = db.execute("DELETE FROM kept").rowcount
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # else the pages before are still in the journal
        return gone

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """One statement after the other, each kept at once."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path}: was closed, as its server stops")
            try:
                self._opened = self._opened or self._open()
                yield self._opened
            except (sqlite3.Error, OSError) as error:
                fix = "Check the disk and the rights to the folder; a damaged file can be deleted."
                raise StoreError(f"{self._path}: queued work cannot be used: {error}", fix) from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(exist_ok=True)  # not its parents: they may be a disk that is not mounted yet
        db = sqlite3.connect(self._path, PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            self._path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'forgotten'").fetchone() is None:
                db.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")
            return db
        except BaseException:
            db.close()
            raise


@contextmanager
def _at_once(db: sqlite3.Connection) -> Iterator[None]:
    """What is found holds until what follows from it is written."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _forget(db: sqlite3.Connection, now: float) -> None:
    """What is too old goes, and is overwritten. Looking takes no lock."""
    if db.execute("SELECT 1 FROM kept WHERE ends <= ? LIMIT 1", (now,)).fetchone() is not None:
        db.execute("DELETE FROM kept WHERE ends <= ?", (now,))
