"""Request threads in reserve: where one waits for its caller, another answers meanwhile.

A worker answers with few threads, as more of them hand Python's lock to and fro. The server has some more, and these
are parked: each is inside a request that the worker sent to itself, which is answered when the thread is needed. The
server cannot be asked for a thread in any other way, nor can the reading of a body be given up.
"""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from infra.request_threads import SPARE_VARIABLE

log = logging.getLogger(__name__)

PATH, HEADER, NAME = "/healthz", "X-Pymk-Park", "HTTP_X_PYMK_PARK"
"""What parking asks for, and what tells that it is that: another worker on the port answers it as anybody's."""
LOOK_S = 0.25
PARKED_S, APART_S = 2.0, 0.25
"""After how long a thread is parked anew, and how much longer the next: a server that stops waits for every request."""


class Line:
    """A connection to the worker's own port, with one request on it. needed: its thread is to answer others, as it
    does anyhow after parked_s."""

    def __init__(self, address: tuple[str, int], parked_s: float) -> None:
        self.needed, self.parked_s = threading.Event(), parked_s
        self._socket = socket.create_connection(address, timeout=1.0)

    def send(self, name: str) -> None:
        self._socket.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{HEADER}: {name}\r\n\r\n".encode())
        self._socket.setblocking(False)

    def is_over(self) -> bool:
        """Whether it was answered, or never will be."""
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.needed.set()
        self._socket.close()


class SpareThreads:
    """count: threads to keep parked. is_ending: whether the server is stopping, and waits for every request to end.

    Thread-safe. Does nothing before it knows the server's address, which it takes from the first request.
    """

    def __init__(self, count: int, is_ending: Callable[[], bool]) -> None:
        self._count = count
        self._is_ending = is_ending
        self._token = secrets.token_hex(8)
        self._made, self._waiting = 0, 0
        self._lines: dict[str, Line] = {}
        self._lock = threading.Lock()
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="spare-threads", daemon=True)
        self._address: tuple[str, int] | None = None
        self.knows = count == 0

    @property
    def count(self) -> int:
        """Threads that may wait at once; 0 where any number may."""
        return self._count

    @classmethod
    def of_environment(cls, is_ending: Callable[[], bool]) -> "SpareThreads":
        return cls(int(os.environ.get(SPARE_VARIABLE, "0")), is_ending)

    def learn(self, environ: Mapping[str, Any]) -> None:
        """environ: of any request, for the address that the server listens on."""
        with self._lock:
            if not self.knows and environ.get("SERVER_SOFTWARE") == "Granian":
                self._address = (environ["SERVER_NAME"], int(environ["SERVER_PORT"]))
                self.knows = True
                self._thread.start()

    def parks(self, environ: Mapping[str, Any]) -> bool:
        """Whether this is a request that parks its thread; the thread has been needed meanwhile then."""
        name = environ.get(NAME)
        line = self._lines.get(name) if name is not None else None
        if line is None:
            return False
        line.needed.wait(line.parked_s)
        line.needed.set()
        return True

    @contextmanager
    def instead(self) -> Iterator[bool]:
        """While this thread may have to wait another answers; false where there is none left, and it must not wait."""
        with self._lock:
            self._waiting += 1
            may_wait = self._waiting <= self._count or self._count == 0
            line = next((line for line in self._lines.values() if not line.needed.is_set()), None)
            if line is not None:
                line.needed.set()
        try:
            yield may_wait
        finally:
            with self._lock:
                self._waiting -= 1
            self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set() and not self._is_ending():
            try:
                self._keep_up()
            except OSError as error:
                log.debug("no thread can be parked now: %s", error)
            self._wake.wait(LOOK_S)
            self._wake.clear()
        with self._lock:
            self._count = 0
            for line in self._lines.values():
                line.needed.set()

    def _keep_up(self) -> None:
        """Parks as many as are neither waiting nor answering in the place of who waits."""
        with self._lock:
            for name in [name for name, line in self._lines.items() if line.is_over()]:
                self._lines.pop(name).close()
            parked = [line for line in self._lines.values() if not line.needed.is_set()]
            missing = self._count - self._waiting - len(parked)
            for line in parked[: max(0, -missing)]:
                line.needed.set()
        for _ in range(missing):
            self._park()

    def _park(self) -> None:
        assert self._address is not None
        self._made += 1
        place = self._made % self._count
        name, line = f"{self._token}-{self._made}", Line(self._address, PARKED_S + APART_S * place)
        with self._lock:
            self._lines[name] = line
        try:
            line.send(name)
        except OSError:
            with self._lock:
                del self._lines[name]
            line.close()
            raise
