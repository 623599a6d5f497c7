"""Reads of the store that requests need, made beside them: a store that is slow or hangs holds no request's thread.

One question is read once, however many wait for it. What could not be read is not asked for again at once.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from infra.errors import NotFound, PymkError, StoreError, UsageError
from lookup_api.deadline import Deadline, TooLate

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 1.0
"""Who comes while a read has taken that long does not wait: the store hangs."""
FAILED_S = 1.0
"""For which a failure of the store is taken for granted."""
MOST_WAITING, MOST_FAILED = 64, 4096


class StoreReads:
    """Reads one after the other on a thread of its own, which the first question starts. Safe to use from any
    thread."""

    def __init__(self, unknown_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """unknown_s: for which what the store does not have, or refuses, is not looked for again."""
        self._unknown_s = unknown_s
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Any]] = {}
        self._failed: dict[str, tuple[float, PymkError]] = {}
        self._queue: queue.SimpleQueue[tuple[str, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._reads_since: float | None = None
        self._thread: threading.Thread | None = None

    def read(self, question: str, read: Callable[[], T], deadline: Deadline) -> T:
        """What `read` returns, or raises. Raises TooLate where it is not there in time, and StoreError, at once, while
        the store hangs or too much else is to be read."""
        found = self._asked(question, read)
        if self._hangs() and not found.done():
            raise StoreError(f"{question}: the store does not answer", "Check that it is not hung.")
        try:
            return found.result(max(0.0, deadline.left_s))
        except TimeoutError:
            raise TooLate(f"{question} was not read in time") from None

    def stop(self) -> None:
        """Without waiting for a read that hangs."""
        self._queue.put(None)

    def _asked(self, question: str, read: Callable[[], T]) -> "Future[T]":
        with self._lock:
            until, error = self._failed.get(question, (0.0, None))
            if error is not None and self._clock() < until:
                raise error.with_traceback(None)
            if (found := self._pending.get(question)) is not None:
                return found
            if len(self._pending) >= MOST_WAITING:
                raise StoreError(f"{question}: too much else is to be read from the store first", "Ask again.")
            found = self._pending[question] = Future()
            self._queue.put((question, read))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-reads", daemon=True)
                self._thread.start()
            return found

    def _hangs(self) -> bool:
        since = self._reads_since
        return since is not None and self._clock() - since >= PATIENCE_S

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            question, read = asked
            self._reads_since = self._clock()
            try:
                value, error = read(), None
            except PymkError as failure:
                value, error = None, failure
            except Exception as failure:  # whatever it died of, others are to be read
                log.error("%s could not be read", question, exc_info=failure)
                value, error = None, StoreError(f"{question}: {failure}")
            self._reads_since = None
            self._settle(question, value, error)

    def _settle(self, question: str, value: Any, error: PymkError | None) -> None:
        with self._lock:
            found = self._pending.pop(question)
            self._failed.pop(question, None)
            if error is not None:
                if len(self._failed) >= MOST_FAILED:
                    self._failed = {}
                kept_s = self._unknown_s if isinstance(error, NotFound | UsageError) else FAILED_S
                self._failed[question] = (self._clock() + kept_s, error)
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(value)
