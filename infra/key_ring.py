"""The keys that a worker knows: read from the store every so often, asked at every request, never waiting."""

import hashlib
import hmac
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from infra.errors import CorruptArtifact, PymkError
from infra.kept_copies import KeptCopy
from infra.keys import FILE, ID_DIGITS, PREFIX, ApiKey, KeyStore, format_keys, parse_keys
from infra.steady_time import latest_us
from infra.store import ObjectStore, open_store

log = logging.getLogger(__name__)

FIRST_LOOK_S = 5.0
"""Time for the first look, after which the keys that were kept count until it is done."""
_ID = slice(len(PREFIX), len(PREFIX) + ID_DIGITS)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who presented a key. ends_at: seconds since 1970."""

    key_id: str
    scopes: frozenset[str]
    digest: bytes
    ends_at: float


_NOBODY = Holder("", frozenset(), os.urandom(32), 0.0)
"""What a key of no known id is compared with, so that it takes as long; nothing has this digest."""


def _latest_s() -> float:
    """A clock that jumps back opens nothing again."""
    return latest_us() / 1e6


class KeyRing:
    """Keys of a store as they were when last looked at; safe to use from any thread.

    Where the store cannot be read, or its file of keys is damaged or gone, the keys known before stay: losing a file
    opens no door. Those of a remote store are kept in the local cache too, so that a worker that starts while the store
    is away knows them. Before the first successful look nothing else is known and no key opens.
    """

    def __init__(self, store_uri: str, poll_s: float = 1.0, clock: Callable[[], float] = _latest_s) -> None:
        self._store_uri = store_uri
        self._poll_s = poll_s
        self._clock = clock
        self._store: ObjectStore | None = None
        self._holders: dict[str, Holder] | None = None
        self._etag: str | None = None
        self._fresh = False
        self._copy = KeptCopy("keys", store_uri)
        self._taking = threading.Lock()
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="key-ring", daemon=True)

    def find(self, presented: str) -> Holder | None:
        """Who holds the key, None for one that is unknown, revoked or expired; in time that no digit of it changes."""
        holder = (self._holders or {}).get(presented[_ID], _NOBODY)
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).digest()
        return holder if hmac.compare_digest(digest, holder.digest) and self._clock() < holder.ends_at else None

    def scopes(self, presented: str) -> frozenset[str] | None:
        """What a key opens; None where it is no key."""
        holder = self.find(presented)
        return None if holder is None else holder.scopes

    def known(self) -> bool:
        """Whether the keys were ever read."""
        return self._holders is not None

    def empty(self) -> bool:
        """Whether no key was ever made; one that was revoked counts, as doors that had a lock stay locked."""
        return self._holders is not None and not self._holders

    def start(self) -> None:
        """Looks once, and from then on in the background; where that takes long, keys that are kept count meanwhile."""
        self._thread.start()
        if not self._looked.wait(FIRST_LOOK_S):
            self._recall()
        if not self.known():
            self._looked.wait()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> bool:
        """Reads the keys; false, and what was known stays, where that fails. Failures are logged, never raised."""
        try:
            self._look()
        except (PymkError, OSError) as error:
            log.warning("cannot read the keys: %s", error)
            if self._holders is None:
                self._recall()
            return False
        return True

    def _look(self) -> None:
        if self._store is None:
            self._store = open_store(self._store_uri)
        keys, etag = KeyStore(self._store).read()
        if self._fresh and etag == self._etag:
            return
        if self._holders and not keys:
            log.warning("%s: the file of keys is gone; those known before still hold", self._store_uri)
            return
        holders = {key.key_id: _holder(key) for key in keys}
        with self._taking:
            self._holders = holders
        if self._store.local_folder(FILE) is None:
            self._copy.keep(format_keys(keys))
        self._etag, self._fresh = etag, True  # a copy that could not be kept is written at the next look

    def _recall(self) -> None:
        """Takes what the copy holds, where there is one."""
        try:
            data = self._copy.read()
            keys = [] if data is None else parse_keys(data, str(self._copy.path))
        except (OSError, CorruptArtifact):
            return
        if not keys:  # some may have been made since, and without any this machine is let in unasked
            return
        with self._taking:
            if self._holders is not None:
                return
            self._holders = {key.key_id: _holder(key) for key in keys}
        log.warning("%s: cannot be read, so the keys are those that were known last", self._store_uri)

    def _follow(self) -> None:
        self.look()
        self._looked.set()
        while not self._stop.wait(self._poll_s):
            self.look()


def _holder(key: ApiKey) -> Holder:
    return Holder(key.key_id, frozenset(key.scopes), bytes.fromhex(key.sha256), key.ends_at())
