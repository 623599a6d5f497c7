"""Turns requests away once they have waited for too long, before anything else is spent on them.

Requests wait inside the server, where no WSGI code sees them, and come out in the order in which they came. So a worker
puts marks into its own queue: now and then, while requests come, it asks itself, over a connection to its own port. Who
comes in while a mark is on its way was there before it, and has waited for at least as long as the mark has. Nothing is
guessed from how busy the worker is, and nobody is turned away who did not wait.
"""

import errno
import itertools
import math
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

MARK_PATH, HEADER, VARIABLE = "/healthz", "X-Pymk-Mark", "HTTP_X_PYMK_MARK"
"""What marks ask for, and what tells that they are marks: another worker on the port answers them as anybody's."""
MARKS, IN_A_WAIT = 8, 4
"""How many may be on their way at once, and how many are sent in the time that a request may wait."""
LOST_S, RETRY_S = 2.0, 0.25
"""A mark that takes longer will not come; a worker that cannot reach itself tries again after a while."""
FILES = "/proc/self/fd"
FEW_SOCKETS = 96
"""Of the server itself, and of so few callers that none is turned away however slow answers are: less work is put into
an answer first (lookup_api.load), and a part that hangs is left alone after a few requests."""
RECOUNT_S = 1.0


class Wire(Protocol):
    """A connection to the worker's own port. Raises OSError once it is broken."""

    def send(self, mark: str) -> None: ...

    def heard(self) -> bool:
        """Whether the answer to what was sent is there."""

    def close(self) -> None: ...


Connect = Callable[[str, int], Wire]


class Queue:
    """wait_s: how long requests may wait. connections: how many there are, at least roughly. Thread-safe."""

    def __init__(
        self,
        wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        connections: Callable[[], int] | None = None,
        connect: Connect | None = None,
    ) -> None:
        self._wait_s = wait_s
        self._clock = clock
        self._connections = connections or sockets
        self._marks = Marks(wait_s / IN_A_WAIT, clock, connect or OwnPort)
        self._counted_s, self._crowded = -math.inf, False

    def enter(self, environ: Mapping[str, Any]) -> bool:
        """Whether the request may come in."""
        now, marks = self._clock(), self._marks
        if now >= marks.due_s:
            marks.send(now, environ)
        return now - marks.oldest_s <= self._wait_s or not self._is_crowded(now)

    def passed(self, environ: Mapping[str, Any]) -> bool:
        """Whether this is one of the worker's own marks, which needs no answer but that it came."""
        mark = environ.get(VARIABLE)
        return mark is not None and self._marks.passed(mark)

    def _is_crowded(self, now: float) -> bool:
        if now - self._counted_s > RECOUNT_S:
            self._counted_s, self._crowded = now, self._connections() > 0
        return self._crowded


@dataclass(slots=True)
class Line:
    """own: a mark came through, so that it does not lead to another worker that shares the port."""

    wire: Wire
    sent_s: float = 0.0
    own: bool = False


class Marks:
    """Marks in this worker's queue. due_s: when the next is to be sent. oldest_s: when the first of those on their way
    was sent that nobody who comes in now can have come after; infinity where none is known. Thread-safe."""

    def __init__(self, every_s: float, clock: Callable[[], float], connect: Connect) -> None:
        self._every_s = every_s
        self._clock = clock
        self._connect = connect
        self._lock = threading.Lock()
        self._token, self._next = secrets.token_hex(8), itertools.count(1).__next__
        self._flying: dict[str, Line] = {}
        self._back: deque[Line] = deque()
        self._passed_s = -math.inf
        self.due_s, self.oldest_s = -math.inf, math.inf

    def send(self, now: float, environ: Mapping[str, Any]) -> None:
        """environ: of any request, for the address that the server listens on."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.due_s = now + self._every_s
            self._forget(now)
            line = self._free(environ)
            if line is not None:
                self._put(line)
        except (OSError, KeyError, ValueError):
            self.due_s = now + RETRY_S
        finally:
            self._settle()
            self._lock.release()

    def passed(self, mark: str) -> bool:
        """Whether a mark is this worker's; it has come through then."""
        with self._lock:
            line = self._flying.pop(mark, None)
            if line is None:
                return False
            line.own = True
            self._back.append(line)
            self._passed_s = max(self._passed_s, line.sent_s)
            self._settle()
            return True

    def _settle(self) -> None:
        """What was sent before a mark that came through is late for a reason of its own, and tells nothing."""
        ahead = (line.sent_s for line in self._flying.values() if line.own and line.sent_s > self._passed_s)
        self.oldest_s = min(ahead, default=math.inf)

    def _forget(self, now: float) -> None:
        """Closes the lines of marks that are lost, and of those that another worker answered."""
        for mark, line in list(self._flying.items()):
            if now - line.sent_s > LOST_S or (not line.own and is_over(line.wire)):
                self._flying.pop(mark).wire.close()

    def _free(self, environ: Mapping[str, Any]) -> Line | None:
        """A line without a mark on it; None where there is none and there are enough."""
        while self._back:
            try:
                return self._back.popleft() if self._back[0].wire.heard() else None
            except OSError:
                self._back.popleft().wire.close()
        if len(self._flying) == MARKS or environ.get("SERVER_SOFTWARE") != "Granian":
            return None
        return Line(self._connect(environ["SERVER_NAME"], int(environ["SERVER_PORT"])))

    def _put(self, line: Line) -> None:
        mark = f"{self._token}-{self._next()}"
        line.sent_s = self._clock()
        try:
            line.wire.send(mark)
        except OSError:
            line.wire.close()
            raise
        self._flying[mark] = line


class OwnPort:
    """A wire that never blocks."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._socket.setblocking(False)
        failed = self._socket.connect_ex((host, port))
        if failed not in (0, errno.EINPROGRESS):
            self._socket.close()
            raise OSError(failed, os.strerror(failed))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, mark: str) -> None:
        self._socket.send(f"GET {MARK_PATH} HTTP/1.1\r\nHost: localhost\r\n{HEADER}: {mark}\r\n\r\n".encode())

    def heard(self) -> bool:
        try:
            if not self._socket.recv(4096):
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


def is_over(wire: Wire) -> bool:
    """Whether its mark was answered, or never will be."""
    try:
        return wire.heard()
    except OSError:
        return True


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
