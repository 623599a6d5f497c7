"""Turns requests away when they come faster than they are answered, before anything is spent on them.

Requests wait in the server, where no WSGI code sees them, so that their number is judged by what can be seen: a worker
that never pauses has some waiting, at most one for each connection. Where it has not paused for a while, and so many
could wait for too long, it turns away whatever comes until it has paused, which empties the queue at a fraction of what
answers cost, and then answers again. Few connections that ask without a break are never turned away.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

PAUSE_S = 0.0001
"""A worker that had nobody for so long had nobody waiting."""
AT_REST = 0.5
"""Share of a core below which the server's own threads are not behind with reading."""
SERVER_THREADS = ("tokio", "granian")
"""What the names of granian's threads begin with; of those, the ones that run no Python read and write connections."""


class Queue:
    """wait_s: how long requests may wait. Call `leave` for each `enter` that was True. Thread-safe.

    connections: how many there are, at least roughly. transport_s: CPU seconds that the server has spent on reading and
    writing: while it does that, a worker without requests is not at rest.
    """

    def __init__(
        self,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        connections: Callable[[], int] | None = None,
        transport_s: Callable[[], float] | None = None,
    ) -> None:
        self._wait_s = wait_s
        self._patience_s = wait_s / 2
        self._clock = clock
        self._connections = connections or OpenFiles()
        self._transport_s = transport_s or TransportTime()
        self._lock = threading.Lock()
        self._inside = 0
        self._begin = self._left = clock()
        self._answered = 0
        self._looked = self._rested = self._begin
        self._spent_s = 0.0
        self._most = 0
        self._turned_away = 0
        self.shedding = False

    def enter(self) -> bool:
        """Whether the request may come in; each that may leaves once."""
        with self._lock:
            now = self._clock()
            if not self._inside and now - self._left > PAUSE_S and self._at_rest(now):
                self._restart(now)
            elif self.shedding:
                self._turned_away += 1
                if self._turned_away > self._most:
                    self._restart(now)
            elif now - self._looked > self._patience_s:
                self._look(now)
            if self.shedding:
                self._left = now
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._answered += 1
            self._left = self._clock()

    def _look(self, now: float) -> None:
        """Whether all that could wait would wait for too long, at the pace since the last pause."""
        self._looked = self._rested = now
        self._most = self._connections()
        self._spent_s = self._transport_s()
        pace = self._answered / (now - self._begin)
        self.shedding = self._most > pace * self._wait_s
        self._turned_away = 1

    def _at_rest(self, now: float) -> bool:
        """Whether a pause means that nobody waits: not where the server was busy reading what others sent."""
        if not self.shedding:
            return True
        spent_s = self._transport_s()
        busy = (spent_s - self._spent_s) / (now - self._rested)
        self._spent_s, self._rested = spent_s, now
        return busy < AT_REST

    def _restart(self, now: float) -> None:
        self.shedding = False
        self._begin = self._looked = now
        self._answered = 0


class OpenFiles:
    """Connections, as files that are open beyond those at the first call."""

    def __init__(self) -> None:
        self._others: int | None = None

    def __call__(self) -> int:
        try:
            found = len(os.listdir("/proc/self/fd"))
        except OSError:
            return 0
        if self._others is None:
            self._others = 0
        return found - self._others


class TransportTime:
    """CPU seconds of the server's own threads. Asked by each thread that answers, which is how it knows those."""

    def __init__(self) -> None:
        self._answering: set[int] = set()
        self._clocks: list[int] = []

    def __call__(self) -> float:
        own = threading.get_native_id()
        if own not in self._answering:
            self._answering.add(own)
            self._clocks = [clock_of(thread) for thread in server_threads() if thread not in self._answering]
        try:
            return sum(time.clock_gettime(clock) for clock in self._clocks)
        except OSError:
            self._answering.clear()
            return 0.0


def server_threads() -> list[int]:
    """Ids of this process's threads by their names; none where there is no /proc."""
    found = []
    for folder in Path("/proc/self/task").glob("*"):
        try:
            if (folder / "comm").read_text().startswith(SERVER_THREADS):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def clock_of(thread: int) -> int:
    """The CPU clock of a thread of this process, as Linux numbers them (MAKE_THREAD_CPUCLOCK in posix-timers.h)."""
    return (~thread << 3) | 6
