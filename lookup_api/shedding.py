"""Turns requests away when they come faster than they are answered, before anything is spent on them.

Requests wait in the server, where no WSGI code sees them, so that their number is judged by what can be seen: a worker
that hardly pauses has some waiting, at most one for each connection. Where so many could wait for too long, it turns
away whatever comes until it has paused, which empties the queue at a fraction of what answers cost, and then answers
again. Few connections that ask without a break are never turned away, and many of which few ask hardly ever: where it
turns out that the queue was short, the next look is later.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PAUSE_S = 0.0001
"""Time between two requests from which on nobody was waiting: taking the next one needs half of it."""
LONGEST_PAUSE_S = 0.0005
"""What a pause counts at most: in a longer one the machine may just have worked for somebody else."""
REST_SHARE, BUSY_SHARE = 0.02, 0.5
"""Share of its time that a worker pauses, at least, where it keeps up; and that it answers, at least, where not."""
CHUNK, SLOWER = 32, 1.4
"""Refusals that are timed together, and how much longer than the fastest they take once nobody was waiting."""
MOST_PATIENCE = 16
"""Times the allowed wait after which a worker that hardly pauses looks who could be waiting, at most."""
FILES = "/proc/self/fd"
OTHER_SOCKETS = 8
"""The one that is listened on, those to Redis, and the callers who are being answered."""
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
        self._patience_s = wait_s
        self._clock = clock
        self._connections = connections or sockets
        self._transport_s = transport_s or TransportTime()
        self._lock = threading.Lock()
        self._inside = 0
        self._left = self._looked = self._rested = clock()
        self._entered = self._chunk = self._left
        self._answered = 0
        self._busy_s = self._paused_s = self._spent_s = 0.0
        self._fastest_s = float("inf")
        self._most = self._turned_away = 0
        self._pace = 0.0
        self.shedding = False

    def enter(self) -> bool:
        """Whether the request may come in; each that may leaves once."""
        with self._lock:
            now = self._clock()
            pause_s = 0.0 if self._inside else now - self._left
            if self.shedding:
                self._turned_away += 1
                if self._turned_away > self._most or self._slower(now) or (pause_s > PAUSE_S and self._at_rest(now)):
                    self._end(now)
            else:
                if pause_s > PAUSE_S:
                    self._paused_s += min(pause_s, LONGEST_PAUSE_S)
                if now - self._looked > self._patience_s:
                    self._look(now)
            if self.shedding:
                self._left = now
                return False
            if not self._inside:
                self._entered = now
            self._inside += 1
            return True

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            self._answered += 1
            self._left = now = self._clock()
            if not self._inside:
                self._busy_s += now - self._entered

    def _look(self, now: float) -> None:
        """Whether the worker has hardly paused since it last looked, and all that could wait would wait too long."""
        since_s = now - self._looked
        standing = self._paused_s < REST_SHARE * since_s and self._busy_s > BUSY_SHARE * since_s
        pace = self._answered / since_s
        self._begin(now)
        if not standing:
            self._patience_s = max(self._wait_s, self._patience_s / 2)
            return
        self._most, self._pace = self._connections(), pace
        self.shedding = self._most > pace * self._wait_s
        self._turned_away = 1
        self._spent_s, self._rested = self._transport_s(), now
        self._chunk, self._fastest_s = now, float("inf")

    def _end(self, now: float) -> None:
        """Answers again, and is more patient where those turned away need not have waited for long."""
        short = self._turned_away < self._pace * self._wait_s / 2
        self._patience_s = min(MOST_PATIENCE * self._wait_s, 2 * self._patience_s) if short else self._wait_s
        self._begin(now)

    def _slower(self, now: float) -> bool:
        """Whether refusals come slower than while the queue was emptied: then each has to arrive first."""
        if self._turned_away % CHUNK:
            return False
        took_s, self._chunk = now - self._chunk, now
        self._fastest_s = min(self._fastest_s, took_s)
        return took_s > SLOWER * self._fastest_s

    def _at_rest(self, now: float) -> bool:
        """Whether a pause means that nobody waits: not where the server was busy reading what others sent."""
        spent_s = self._transport_s()
        busy = (spent_s - self._spent_s) / (now - self._rested)
        self._spent_s, self._rested = spent_s, now
        return busy < AT_REST

    def _begin(self, now: float) -> None:
        self.shedding = False
        self._looked = now
        self._answered = 0
        self._busy_s = self._paused_s = 0.0


def sockets() -> int:
    """Sockets of this process beyond those that are no connections of callers; 0 where they cannot be seen."""
    found = 0
    try:
        for name in os.listdir(FILES):
            with suppress(OSError):  # closed meanwhile
                found += os.readlink(f"{FILES}/{name}").startswith("socket:")
    except OSError:
        return 0
    return max(0, found - OTHER_SOCKETS)


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
