"""Circuit breakers (Nygard, Release It!) and bounded retries: how the API stops asking what does not answer."""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lookup_api.deadline import Deadline

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 30.0
T = TypeVar("T")


class Breaker:
    """Opens after `failures` more failures than successes; then one try is let through each wait, and a success closes.

    The wait doubles with every try that fails, up to `longest_s`, and is drawn from half of it to all, so that the
    workers of a fleet do not try together. Safe to use from any thread. While all is well `allows` and `succeeded` are
    one comparison each.
    """

    def __init__(
        self,
        name: str,
        failures: int,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        longest_s: float = LONGEST_WAIT_S,
    ) -> None:
        self.name = name
        self._most = failures
        self._first_wait_s, self._longest_s = wait_s, longest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._heat = 0
        self._wait_s = 0.0
        self._next_s = 0.0
        self.told: Callable[[float], None] = lambda is_open: None

    @property
    def open(self) -> bool:
        return self._wait_s > 0

    def allows(self) -> bool:
        """Whether to try now; of the calls while it is open, one each wait."""
        if not self._wait_s:
            return True
        with self._lock:
            now = self._clock()
            if self._wait_s and now < self._next_s:
                return False
            self._next_s = now + self._drawn()
            return True

    def succeeded(self) -> None:
        if not self._heat:
            return
        with self._lock:
            if self._wait_s:
                log.warning("%s answers again", self.name)
                self._heat, self._wait_s = 0, 0.0
                self.told(0)
            else:
                self._heat = max(0, self._heat - 1)

    def failed(self) -> None:
        with self._lock:
            self._heat += 1
            if self._heat < self._most:
                return
            self._heat = self._most
            if not self._wait_s:
                log.error("%s failed %d times and is left alone for a while", self.name, self._most)
                self.told(1)
            self._wait_s = min(self._longest_s, 2 * self._wait_s or self._first_wait_s)
            self._next_s = self._clock() + self._drawn()

    def trip(self) -> None:
        """Opens at once, as after so many failures."""
        with self._lock:
            self._heat = self._most - 1
        self.failed()

    def _drawn(self) -> float:
        return self._wait_s * random.uniform(0.5, 1.0)


def retried(
    call: Callable[[], T],
    deadline: Deadline,
    transient: tuple[type[BaseException], ...],
    retries: int = 1,
    pause_s: float = 0.002,
) -> T:
    """call(), again after a transient error, at most `retries` times and only where the deadline leaves the time.

    The pause before each retry is drawn from 0 to `pause_s`, twice as much each time (full jitter).
    """
    for retry in range(retries):
        try:
            return call()
        except transient:
            pause = random.uniform(0, pause_s * 2**retry)
            if deadline.left_s <= pause:
                raise
            time.sleep(pause)
    return call()
