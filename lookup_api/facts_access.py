"""Live facts as requests reach them: opened when they can be, left alone for a while when they fail."""

import logging
import threading
from collections.abc import Mapping, Sequence

from infra.errors import StoreError, UsageError
from infra.events import Event, Refusal
from infra.live_facts import ERASED, LiveStore, ViewerFacts, open_live_facts
from infra.settings import Settings
from lookup_api.breaker import Breaker
from lookup_api.metrics import Metrics

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 2.0
"""Between tries while they cannot be read: no request waits for one, and until it succeeds nobody is shown."""


class FactsAccess:
    """Safe to use from any thread. A place that cannot be opened yet is tried again as the breaker lets it."""

    def __init__(self, uri: str, settings: Settings, metrics: Metrics) -> None:
        self._uri = uri
        self._settings = settings
        self._failures = metrics.facts_failures
        self._lock = threading.Lock()
        self._opened: LiveStore | None = None
        ladder = settings.ladder
        self.breaker = Breaker("live facts", ladder.breaker_failures, ladder.breaker_wait_s, longest_s=LONGEST_WAIT_S)
        self.of(0)

    def of(self, viewer: int) -> ViewerFacts | None:
        """None where they cannot be read, or could not a moment ago: no request waits to see whether they can again."""
        if self.breaker.open:
            if self.breaker.allows():
                threading.Thread(target=self._read, args=(viewer,), name="facts-again", daemon=True).start()
            return None
        return self._read(viewer)

    def _read(self, viewer: int) -> ViewerFacts | None:
        try:
            found = (self._opened or self._open()).of(viewer)
        except UsageError:
            raise
        except Exception as error:  # whatever a reading died of, nobody is shown unchecked, and somebody must be told
            self._failures.inc()
            if not self.breaker.open:
                unforeseen = None if isinstance(error, StoreError) else error
                log.error("live facts cannot be read: %s", error, exc_info=unforeseen)
            self.breaker.failed()
            return None
        self.breaker.succeeded()
        return found

    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        """Raises StoreError where they cannot be stored, at once where live facts do not answer; see LiveFacts."""
        if self.breaker.open and self.of(0) is None:
            raise StoreError("live facts do not answer and are left alone for a while")
        try:
            return (self._opened or self._open()).record(events)
        except StoreError:
            self.of(0)  # what can be read but takes no events is full, and still worth asking
            raise

    def adopt(self, recorded: Mapping[int, int]) -> int:
        """Erases those of `recorded` (person -> when) whom they do not know as erased; returns how many.

        Of workers that do so together each finds what the others have done. Raises StoreError.
        """
        if not recorded:
            return 0
        facts, adopted = self._opened or self._open(), 0
        hidden = facts.of(0).hidden
        for person in [person for person in recorded if hidden.get(person) != ERASED]:
            if facts.of(0).hidden.get(person) != ERASED:
                facts.erase(person, recorded[person])
                adopted += 1
        return adopted

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> LiveStore:
        with self._lock:
            if self._opened is None:
                self._opened = open_live_facts(self._uri, self._settings)
            return self._opened
