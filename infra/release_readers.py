"""Who has a release open: `{store}/readers/{release_id}/{reader}`, written anew every minute while it is open.

Cleaning keeps a release as long as its readers give signs of life, on whatever machine they are. Their age is told by
the store's own clock alone. A reader that may not write to the store goes unseen, and has what CURRENT and a rollback
keep.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from infra.errors import PymkError, StoreError
from infra.process_life import is_gone, this_process
from infra.store import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "readers"
RENEW_S = 60.0
END_S = 5.0
STALE_S = 900.0
"""Time without a sign of life after which a reader is taken for dead."""


class Reading:
    """A release that this process has open."""

    def __init__(self, store: ObjectStore, release_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Says so at once."""
        self.release_id = release_id
        self._store = store
        self._key = f"{FOLDER}/{release_id}/{uuid.uuid4().hex}"
        self._clock = clock
        self._said_at = -RENEW_S
        self._failed = False
        self.renew()

    def renew(self) -> None:
        """To be called now and then; does nothing more often than every RENEW_S seconds."""
        if self._clock() - self._said_at < RENEW_S:
            return
        self._said_at = self._clock()
        try:
            self._store.put(self._key, this_process().encode())
        except (StoreError, OSError) as error:
            if not self._failed:  # once: a server may not be allowed to write
                log.info("%s is not told that %s is open: %s", self._store.uri, self.release_id, error)
            self._failed = True

    def end(self) -> None:
        with suppress(StoreError, OSError):
            self._store.delete(self._key)


class ReadingAside:
    """A release that this process has open, said by a thread of its own: who reads never waits for a write."""

    def __init__(self, store: ObjectStore, release_id: str) -> None:
        self.said, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._say, args=(store, release_id), name="reading", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Waits a little for the mark to go; one that stays is too old soon."""
        self._stop.set()
        self._thread.join(END_S)

    def _say(self, store: ObjectStore, release_id: str) -> None:
        one = Reading(store, release_id)
        self.said.set()
        while not self._stop.wait(RENEW_S):
            one.renew()
        one.end()


@contextmanager
def reading(store: ObjectStore, release_id: str) -> Iterator[None]:
    """A block during which a release is open."""
    one = ReadingAside(store, release_id)
    one.said.wait()
    try:
        yield
    finally:
        one.end()


def open_releases(store: ObjectStore, now_s: float) -> set[str]:
    """Ids of the releases that somebody has open; marks of dead readers are removed. now_s: by the store's clock."""
    found = set()
    for info in store.list(f"{FOLDER}/"):
        release_id, _, reader = info.key.removeprefix(f"{FOLDER}/").partition("/")
        if now_s - info.modified_s >= STALE_S or _is_gone(store, info.key):
            store.delete(info.key)
        elif reader:
            found.add(release_id)
    return found


def _is_gone(store: ObjectStore, key: str) -> bool:
    try:
        return is_gone(store.get(key).data.decode(errors="replace"))
    except PymkError:
        return False
