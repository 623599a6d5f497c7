"""Turns requests away when they come faster than they are answered, before anything is spent on them.

Requests wait in the server, where no WSGI code sees them, so that their number is judged by what can be seen: a worker
whose threads never rest has some waiting, at most one for each connection. Where so many could wait for too long, it
turns away whatever comes until its threads rest, which empties the queue at a fraction of what answers cost, and then
answers again. Few connections that ask without a break are never turned away, and many of which few ask hardly ever:
where it turns out that the queue was short, the next look is later.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

RESTLESS, RESTED = 0.97, 0.9
"""Share of the time that threads work or wait for a core, from which on they never rest; below which they do."""
CHUNK = 16
"""Refusals between two looks whether anybody still waits."""
SLOWER, HARDLY_FASTER = 1.4, 0.5
"""Times the fastest chunk, and the time of as many answers, from which on refusals come as slowly as requests do."""
MOST_PATIENCE = 16
"""Times the allowed wait after which a worker without rest looks who could be waiting, at most."""
FILES, TASKS = "/proc/self/fd", "/proc/self/task"
FEW_SOCKETS = 64
"""Of the server itself, and of so few callers that none is turned away however slow answers are: less work is put into
an answer first (lookup_api.load), and a part that hangs is left alone after a few requests."""
SERVER_THREADS = ("tokio", "granian")
"""What the names of granian's threads begin with; of those, the ones that run no Python read and write connections."""

Worked = tuple[float, float]
"""Seconds that the threads which answer, and those which read and write, have worked or waited for a core."""


class Queue:
    """wait_s: how long requests may wait. Call `leave` for each `enter` that was True. Thread-safe.

    threads: that answer. connections: how many there are, at least roughly. worked: sums since the worker began.
    """

    def __init__(
        self,
        wait_s: float,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        connections: Callable[[], int] | None = None,
        worked: Callable[[], Worked] | None = None,
    ) -> None:
        self._wait_s = self._patience_s = wait_s
        self._threads = threads
        self._clock = clock
        self._connections = connections or sockets
        self._worked = worked or ThreadTimes()
        self._lock = threading.Lock()
        self._inside = self._answered = 0
        self._changed = self._looked = clock()
        self._busy_s = 0.0
        self._before: Worked = (0.0, 0.0)
        self._pace = 0.0
        self._fastest_s = float("inf")
        self._most = self._turned_away = 0
        self.shedding = False

    def enter(self) -> bool:
        """Whether the request may come in; each that may leaves once."""
        with self._lock:
            now = self._clock()
            if self.shedding:
                self._turned_away += 1
                if self._turned_away > self._most or (self._turned_away % CHUNK == 0 and self._is_empty(now)):
                    self._end(now)
            elif now - self._looked > self._patience_s:
                self._look(now)
            if self.shedding:
                return False
            self._busy_s += self._inside * (now - self._changed)
            self._changed = now
            self._inside += 1
            return True

    def leave(self) -> None:
        with self._lock:
            now = self._clock()
            self._busy_s += self._inside * (now - self._changed)
            self._changed = now
            self._inside -= 1
            self._answered += 1

    def _look(self, now: float) -> None:
        """Whether the threads have not rested since the last look, and all that could wait would wait too long."""
        pace = self._answered / (now - self._looked)
        if self._share(now) < RESTLESS:
            self._patience_s = max(self._wait_s, self._patience_s / 2)
            return
        self._most, self._pace = self._connections(), pace
        self.shedding = self._most > pace * self._wait_s
        self._turned_away, self._fastest_s = 0, float("inf")

    def _is_empty(self, now: float) -> bool:
        """Whether nobody waits: the threads rest, or refusals come slower than before, or hardly faster than answers
        did, so that each has to arrive first."""
        took_s = now - self._looked
        self._fastest_s = min(self._fastest_s, took_s)
        slow = took_s > SLOWER * self._fastest_s or took_s * self._pace > HARDLY_FASTER * CHUNK
        return self._share(now) < RESTED or slow

    def _share(self, now: float) -> float:
        """Of the time since the last look, that in which the busier kind of thread did not rest, or all were taken."""
        since_s = now - self._looked
        answering, moving = self._worked()
        taken_s = self._busy_s / self._threads
        worked_s = max(answering - self._before[0], moving - self._before[1], taken_s)
        self._before = (answering, moving)
        self._looked, self._answered, self._busy_s = now, 0, 0.0
        return worked_s / since_s if since_s > 0 else 0.0

    def _end(self, now: float) -> None:
        """Answers again, and is more patient where those turned away need not have waited for long."""
        self.shedding = False
        short = self._turned_away <= max(CHUNK, self._pace * self._wait_s / 2)
        self._patience_s = min(MOST_PATIENCE * self._wait_s, 2 * self._patience_s) if short else self._wait_s
        self._share(now)


def sockets() -> int:
    """Sockets of this process beyond a few; 0 where they cannot be seen."""
    found = 0
    try:
        for name in os.listdir(FILES):
            with suppress(OSError):  # closed meanwhile
                found += os.readlink(f"{FILES}/{name}").startswith("socket:")
    except OSError:
        return 0
    return max(0, found - FEW_SOCKETS)


class ThreadTimes:
    """Of the threads that answer and of the server's own. Asked by each that answers, which is how it knows those."""

    def __init__(self) -> None:
        self._answering: set[int] = set()
        self._moving: list[int] = []

    def __call__(self) -> Worked:
        own = threading.get_native_id()
        if own not in self._answering:
            self._answering.add(own)
            self._moving = [thread for thread in server_threads() if thread not in self._answering]
        return sum(map(worked_s, self._answering)), sum(map(worked_s, self._moving))


def worked_s(thread: int) -> float:
    """Seconds that a thread of this process has run, or waited for a core, where the system tells; 0 for none."""
    try:
        ran, waited, _ = Path(f"{TASKS}/{thread}/schedstat").read_bytes().split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        with suppress(OSError):
            return time.clock_gettime(clock_of(thread))
        return 0.0


def server_threads() -> list[int]:
    """Ids of this process's threads by their names; none where there is no /proc."""
    found = []
    for folder in Path(TASKS).glob("*"):
        with suppress(OSError):
            if (folder / "comm").read_text().startswith(SERVER_THREADS):
                found.append(int(folder.name))
    return found


def clock_of(thread: int) -> int:
    """The CPU clock of a thread of this process, as Linux numbers them (MAKE_THREAD_CPUCLOCK in posix-timers.h)."""
    return (~thread << 3) | 6
