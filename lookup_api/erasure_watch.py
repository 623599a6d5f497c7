"""Follows the store's record of erasures, and brings it to live facts that do not know it.

They may be new, restored from a copy, or of another machine than the one that `pymk erase` was run on. Where the record
cannot be read it is what this machine read of it last.
"""

import logging
import threading

from infra.erasures import KEY, copied_erasures, copy_of_record, parse_erasures
from infra.errors import NotFound
from infra.store import ObjectStore, open_store
from lookup_api.facts_access import FactsAccess
from lookup_api.metrics import Metrics

log = logging.getLogger(__name__)

SHORTEST_S = 5.0
"""Between two looks at the record, at least: it is a net below `pymk erase`, which tells live facts itself."""


class ErasureWatch:
    """Looks again and again in a thread of its own, as the store may hang. A failure is counted and tried again."""

    def __init__(self, store_uri: str, facts: FactsAccess, poll_s: float, metrics: Metrics) -> None:
        self._store_uri = store_uri
        self._facts = facts
        self._wait_s = max(poll_s, SHORTEST_S)
        self._failures = metrics.erasures_failures
        self._failing = False
        self._store: ObjectStore | None = None
        self._copy = copy_of_record(store_uri)
        self._etag: str | None = None
        self._people: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="erasure-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Without waiting for a store that hangs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> None:
        """Erases from live facts whom only the record names. Failures are logged and counted, never raised."""
        try:
            try:
                self._read()
            except Exception:
                self._people = self._people or copied_erasures(self._copy)
                raise
            finally:  # a record that cannot be read now does not undo what was read before
                adopted = self._facts.adopt(self._people)
        except Exception as error:
            self._failures.inc()
            if not self._failing:
                log.error("the record of erasures cannot be brought to live facts: %s", error)
            self._failing = True
            return
        self._failing = False
        if adopted:
            log.warning("live facts did not know of %d erasures that the store records; now they do", adopted)

    def _read(self) -> None:
        if self._store is None:
            self._store = open_store(self._store_uri)
        try:
            stored = self._store.get(KEY)
        except NotFound:
            return
        if stored.etag != self._etag:
            self._people = parse_erasures(stored, f"{self._store.uri}/{KEY}")
            self._copy.keep(stored.data)
            self._etag = stored.etag  # a copy that could not be kept is written at the next look

    def _follow(self) -> None:
        self.look()
        while not self._stop.wait(self._wait_s):
            self.look()
