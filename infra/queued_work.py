"""Work that is done later, by whoever has the time: queued, taken once, and its result kept for a while.

Two forms keep the same promises: a file for the workers of one machine, Redis for a fleet. What waits outlives its
worker, as another takes it; what was being done is lost with the one who did it, and said to be.
"""

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.errors import StoreError
from infra.live_stream import Link
from infra.redis_connection import explained, is_cluster, is_redis, shown

FILE = "queued.sqlite"
PREFIX = "pymk:work:"
QUEUE = f"{PREFIX}queue"
ID_BYTES = 16
PATIENCE_S = 2.0
"""Waiting for others who write to the file."""
QUEUED, TAKEN, DONE = "queued", "taken", "done"
_MARKS = {b"q": QUEUED, b"t": TAKEN, b"d": DONE}


@dataclass(frozen=True, slots=True)
class Work:
    """state: queued, taken or done. since_s: when it came to be so, seconds since 1970. data: of done work its result,
    else what there is to do."""

    state: str
    since_s: float
    data: bytes


class QueuedWork(Protocol):
    """Thread-safe. Ids cannot be guessed. Everything raises StoreError where the file or the server cannot be used."""

    def put(self, data: bytes) -> str | None:
        """The id under which it is found; None where as much waits as may."""
        ...

    def take(self) -> tuple[str, bytes] | None:
        """What waits longest, which nobody else takes then; None where nothing does."""
        ...

    def finish(self, work_id: str, result: bytes) -> None:
        """Keeps the result, from now on for as long as any."""
        ...

    def get(self, work_id: str) -> Work | None:
        """None for what there never was, or is no more."""
        ...

    def close(self) -> None: ...


def open_queue(uri: str, most: int, life_s: float, timeout_s: float) -> QueuedWork:
    """In a folder, or at an address of Redis. most: that may wait. life_s: of what waits, and again of a result.

    timeout_s: for an answer of Redis.
    """
    if is_redis(uri) or is_cluster(uri):
        return RedisQueue(uri, most, life_s, timeout_s)
    return FileQueue(Path(uri) / FILE, most, life_s)


class FileQueue:
    """The file is made by the first work that is put there."""

    def __init__(self, path: Path, most: int, life_s: float, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._most = most
        self._life_s = life_s
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def put(self, data: bytes) -> str | None:
        work_id, now = secrets.token_hex(ID_BYTES), self._clock()
        with self._using() as db:
            _forget(db, now)
            if db.execute("SELECT count(*) FROM work WHERE state = 'queued'").fetchone()[0] >= self._most:
                return None
            db.execute("INSERT INTO work VALUES (?, 'queued', ?, ?, ?)", (work_id, now, now + self._life_s, data))
        return work_id

    def take(self) -> tuple[str, bytes] | None:
        if self._opened is None and not self._path.exists():
            return None
        with self._using() as db:
            now = self._clock()
            _forget(db, now)
            waits = "FROM work WHERE state = 'queued' AND ends > ? ORDER BY rowid LIMIT 1"
            if db.execute(f"SELECT 1 {waits}", (now,)).fetchone() is None:  # looking takes no lock
                return None
            found = db.execute(
                f"UPDATE work SET state = 'taken', since = ? WHERE id = (SELECT id {waits}) RETURNING id, data",
                (now, now),
            ).fetchone()
        return None if found is None else (found[0], found[1])

    def finish(self, work_id: str, result: bytes) -> None:
        now = self._clock()
        with self._using() as db:
            db.execute(
                "UPDATE work SET state = 'done', since = ?, ends = ?, data = ? WHERE id = ?",
                (now, now + self._life_s, result, work_id),
            )

    def get(self, work_id: str) -> Work | None:
        if self._opened is None and not self._path.exists():
            return None
        with self._using() as db:
            found = db.execute(
                "SELECT state, since, data FROM work WHERE id = ? AND ends > ?", (work_id, self._clock())
            ).fetchone()
        return None if found is None else Work(*found)

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """One statement after the other, each kept at once."""
        with self._lock:
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
            db.execute("CREATE TABLE IF NOT EXISTS work (id TEXT UNIQUE, state TEXT, since REAL, ends REAL, data BLOB)")
            return db
        except BaseException:
            db.close()
            raise


def _forget(db: sqlite3.Connection, now: float) -> None:
    """What is too old goes, and is overwritten. Looking takes no lock."""
    if db.execute("SELECT 1 FROM work WHERE ends <= ? LIMIT 1", (now,)).fetchone() is not None:
        db.execute("DELETE FROM work WHERE ends <= ?", (now,))


class RedisQueue:
    """Work is a key of its own that Redis forgets by itself, and the queue a list of their ids."""

    def __init__(self, uri: str, most: int, life_s: float, timeout_s: float) -> None:
        self._shown = shown(uri)
        self._most = most
        self._life_ms = int(life_s * 1000)
        self._link = Link(uri, timeout_s)

    @property
    def _client(self) -> Any:
        return self._link.client

    def put(self, data: bytes) -> str | None:
        work_id = secrets.token_hex(ID_BYTES)
        with explained(self._shown):
            if self._client.llen(QUEUE) >= self._most:
                return None
            self._put(work_id, b"q", data)
            self._client.lpush(QUEUE, work_id)
        return work_id

    def take(self) -> tuple[str, bytes] | None:
        with explained(self._shown):
            while (found := self._client.rpop(QUEUE)) is not None:
                work_id = found.decode()
                work = self._get(work_id)
                if work is not None:  # else it waited for too long
                    self._put(work_id, b"t", work.data)
                    return work_id, work.data
        return None

    def finish(self, work_id: str, result: bytes) -> None:
        with explained(self._shown):
            self._put(work_id, b"d", result)

    def get(self, work_id: str) -> Work | None:
        with explained(self._shown):
            return self._get(work_id)

    def close(self) -> None:
        self._link.close()

    def _put(self, work_id: str, mark: bytes, data: bytes) -> None:
        value = b"%b%016.3f%b" % (mark, time.time(), data)
        self._client.set(f"{PREFIX}{work_id}", value, px=self._life_ms)

    def _get(self, work_id: str) -> Work | None:
        value: bytes | None = self._client.get(f"{PREFIX}{work_id}")
        return None if value is None else Work(_MARKS[value[:1]], float(value[1:17]), value[17:])
