"""An open-loop HTTP load generator: requests are sent when they are due, whether or not earlier ones came back.

wrk asks again when it has its answer, so a slow server is asked less, and what waited is not seen (coordinated
omission, as Gil Tene calls it). Here a request has a time at which it is due, and its latency counts from then.
One thread goes over kept-alive connections, of which each has one request on its way. It sleeps when there is nothing
to do, for a client that spins takes from the server where cores share what they have, and tells how late it was itself.
"""

import gc
import math
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

READ_BYTES = 1 << 16
SPIN_S = 50e-6
"""A sleep takes at least about as long."""
STALLED_S = 10.0
AT_ONCE = math.inf
"""As a rate: whenever a connection is free, which is a closed loop."""


@dataclass(slots=True)
class Request:
    """data: the whole request. about: whatever the caller wants back with its answer. Times of time.perf_counter.

    free_s: when it was due and there was a connection for it.
    """

    data: bytes
    about: object = None
    due_s: float = 0.0
    free_s: float = 0.0
    sent_s: float = 0.0


@dataclass(slots=True)
class Answer:
    """status: 0 where the connection broke."""

    request: Request
    status: int
    body: bytes
    done_s: float


@dataclass
class Seen:
    """What came back: how often each status, and of those of 200 the milliseconds from when they were due.

    late_ms: of every request, from when it was due and a connection was free until it was sent. busy: share of the time
    in which the client worked.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    late_ms: "array[float]" = field(default_factory=lambda: array("d"))
    ms: "array[float]" = field(default_factory=lambda: array("d"))
    refused_ms: "array[float]" = field(default_factory=lambda: array("d"))
    seconds: float = 0.0
    busy: float = 0.0

    def add(self, answer: Answer) -> None:
        self.statuses[answer.status] += 1
        took = 1e3 * (answer.done_s - answer.request.due_s)
        (self.ms if answer.status == 200 else self.refused_ms).append(took)
        self.late_ms.append(1e3 * (answer.request.sent_s - answer.request.free_s))

    @property
    def good_per_s(self) -> float:
        return self.statuses[200] / self.seconds

    def within(self, ms: float) -> float:
        """Answers of 200 a second that came so soon after they were due."""
        return int((np.frombuffer(self.ms) <= ms).sum()) / self.seconds if self.ms else 0.0

    def latency(self) -> dict[str, float]:
        """Quantiles of the answers, ms."""
        if not self.ms:
            return {}
        found = np.percentile(np.frombuffer(self.ms), [50, 99, 99.9, 100]).tolist()
        return dict(zip(("p50", "p99", "p99.9", "max"), found, strict=True))

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.statuses.items()))
        return f"{statuses}; " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.latency().items())


def get(path: str, key: str | None = None) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{_authorization(key)}\r\n".encode()


def post(path: str, body: bytes, key: str | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n{_authorization(key)}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _authorization(key: str | None) -> str:
    return f"Authorization: Bearer {key}\r\n" if key else ""


def arrivals(rate: float, seconds: float, seed: int = 17) -> Iterator[float]:
    """Times after the start, s, as independent callers come: a Poisson process of `rate` a second."""
    if rate == AT_ONCE:
        start = time.perf_counter()
        while (now := time.perf_counter() - start) < seconds:
            yield now
        return
    draw, at = np.random.default_rng(seed), 0.0
    while True:
        for gap in draw.exponential(1 / rate, 4096).tolist():
            at += gap
            if at >= seconds:
                return
            yield at


class OpenLoop:
    """Connections to one server; close them when done with. busy: share of the last run in which the client worked."""

    def __init__(self, url: str, connections: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._poll = select.epoll()
        self._free: deque[_Connection] = deque()
        self._by_file: dict[int, _Connection] = {}
        self._room = memoryview(bytearray(READ_BYTES))
        self.busy = 0.0
        for _ in range(connections):
            self._open()

    def run(
        self,
        rate: float,
        seconds: float,
        make: Callable[[], Request],
        seen: Callable[[Answer], None],
    ) -> float:
        """Asks for what `make` says when it is due, and tells `seen` of each answer; returns the seconds it took."""
        return self.run_at(arrivals(rate, seconds), make, seen, rate == AT_ONCE)

    def run_at(
        self,
        times: Iterator[float],
        make: Callable[[], Request],
        seen: Callable[[Answer], None],
        at_once: bool = False,
    ) -> float:
        """The same at these times, s after the start. at_once: a request is due when it is sent.

        A request that is due while no connection is free waits for one, and its latency with it.
        """
        with no_collections():
            start, cpu = time.perf_counter(), time.thread_time()
            due, heard, slept = next(times, None), start, 0.0
            while due is not None or len(self._free) < len(self._by_file):
                while due is not None and self._free and start + due <= time.perf_counter():
                    self._send(make(), time.perf_counter() if at_once else start + due)
                    due = next(times, None)
                if self._take(seen):
                    heard = time.perf_counter()
                    continue
                now = time.perf_counter()
                if len(self._free) < len(self._by_file) and now - heard > STALLED_S:
                    raise TimeoutError(f"{self._address}: no answer for {STALLED_S} s")
                rest = start + due - now if due is not None and self._free else STALLED_S
                if rest > SPIN_S:
                    select.select([self._poll], [], [], rest - SPIN_S)
                    slept += time.perf_counter() - now
        took = time.perf_counter() - start
        self.busy = max(1 - slept / took, (time.thread_time() - cpu) / took)
        return took

    def close(self) -> None:
        for connection in self._by_file.values():
            connection.socket.close()
        self._poll.close()

    def _open(self) -> None:
        connection = _Connection(socket.create_connection(self._address, STALLED_S))
        self._by_file[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        self._free.append(connection)

    def _send(self, request: Request, due_s: float) -> None:
        connection = self._free.popleft()
        request.due_s, request.sent_s = due_s, time.perf_counter()
        request.free_s = max(due_s, connection.free_s)
        connection.request = request
        if connection.socket.send(request.data) != len(request.data):
            raise BlockingIOError(f"{self._address}: a connection does not take a whole request")

    def _take(self, seen: Callable[[Answer], None]) -> bool:
        """Whether anything came."""
        came = self._poll.poll(0)
        for file, _ in came:
            connection = self._by_file[file]
            answer = connection.read(self._room)
            if answer is None:
                continue
            if answer.status:
                connection.free_s = answer.done_s
                self._free.append(connection)
            else:
                self._reopen(file)
            seen(answer)
        return bool(came)

    def _reopen(self, file: int) -> None:
        self._poll.unregister(file)
        self._by_file.pop(file).socket.close()
        self._open()


class _Connection:
    def __init__(self, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        self.socket = opened
        self.request = Request(b"")
        self.free_s = time.perf_counter()
        self._begun = b""

    def read(self, room: memoryview) -> Answer | None:
        """The answer, once all of it is there. room: where to put what comes; any, it is copied."""
        try:
            data = bytes(room[: self.socket.recv_into(room)])
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            return Answer(self.request, 0, b"", time.perf_counter())
        data = self._begun + data if self._begun else data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + (length := content_length(data[:end])):
            self._begun = data
            return None
        self._begun = b""
        return Answer(self.request, int(data[9:12]), data[end + 4 : end + 4 + length], time.perf_counter())


def content_length(head: bytes) -> int:
    head = head.lower()
    at = head.find(b"content-length:")
    return int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0


@contextmanager
def no_collections() -> Iterator[None]:
    """The garbage collector would stop the clock of a request for milliseconds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
