"""Whose turn it is to write live facts: waiting for it ends, where LMDB's own lock would wait for ever.

A process that hangs while it writes (stopped, or on a disk that stalls) must not take the threads of every worker with
it. The lock is of a file beside the data, so that a writer that is killed gives it back.
"""

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import StoreError

PATIENCE_S = 5.0
"""Disks that others use stall for two or three seconds now and then."""
SHORTEST_S, LONGEST_S = 0.0002, 0.005
"""Between two looks whether it is this one's turn."""


class Turn:
    """One a process and file."""

    def __init__(self, path: Path, patience_s: float = PATIENCE_S) -> None:
        self.path = path
        self._patience_s = patience_s
        self._file = path.with_suffix(".writer").open("a")
        self._threads = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """A block in which nobody else writes. Raises StoreError where the one before does not end in time."""
        end = time.monotonic() + self._patience_s
        if not self._threads.acquire(timeout=self._patience_s):
            raise self._stuck()
        try:
            self._wait(end)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _wait(self, end: float) -> None:
        pause = SHORTEST_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._stuck() from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_S)

    def _stuck(self) -> StoreError:
        fix = "Look for a process that is stopped, and at the disk; send the events again."
        return StoreError(f"{self.path}: another writer has not ended within {self._patience_s:g} s", fix)

    def close(self) -> None:
        self._file.close()
