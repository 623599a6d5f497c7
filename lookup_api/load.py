"""How busy this worker is, and how much an answer may cost by it: quality is lowered before requests are shed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FULL, FEWER, NO_LIVE = 0, 1, 2
"""Levels: everything; live ranking of fewer candidates; no live ranking."""
WINDOW_S = 0.25


class Load:
    """The share of their time that the request threads were at work, over the last window.

    fewer, no_live: shares from which on a level holds. A level is left again once the share is a tenth below.
    """

    def __init__(self, threads: int, fewer: float, no_live: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._limits = (fewer, no_live)
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._since = self._window = clock()
        self._busy_s = 0.0
        self.share = 0.0
        self._level = FULL
        self.told: Callable[[int, float], None] = lambda level, share: None

    @property
    def level(self) -> int:
        """What an answer may cost; a worker that was idle for longer than a window is at its ease."""
        if self._level and self._clock() - self._since > 2 * WINDOW_S and not self._running:
            return FULL
        return self._level

    @property
    def in_hand(self) -> int:
        """Requests that the worker has in hand."""
        return self._running

    def began(self) -> None:
        """A request starts."""
        self._step(1)

    def ended(self) -> None:
        """A request has its answer."""
        self._step(-1)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A block of a request in which it waits for its caller, a disk or another host, and does no work."""
        self.ended()
        try:
            yield
        finally:
            self.began()

    def _step(self, change: int) -> None:
        with self._lock:
            now = self._clock()
            self._busy_s += (now - self._since) * self._running
            self._since = now
            self._running += change
            if now - self._window >= WINDOW_S:
                self.share = min(1.0, self._busy_s / (self._threads * (now - self._window)))
                self._window, self._busy_s = now, 0.0
                self._level = self._settled()
                self.told(self._level, self.share)

    def _settled(self) -> int:
        """The level by the share, with some slack on the way down so that it does not flutter."""
        up = sum(self.share >= limit for limit in self._limits)
        down = sum(self.share >= limit * 0.9 for limit in self._limits)
        return max(up, min(self._level, down))
