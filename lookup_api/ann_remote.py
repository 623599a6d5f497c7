"""Index shards in other processes: each is asked at once, and what came back before the deadline is merged.

Nothing waits for one process alone, be it to connect, so that a host which drops packets costs the others nothing.
A process that is late, gone or of another release is left out and named by its address. Its connection is closed with
it, so that a late reply is never taken for that of a later question; a breaker keeps it from being asked each time.
"""

import errno
import logging
import os
import selectors
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from infra.host_port import host_and_port
from lookup_api.ann import Float32, Found, merged
from lookup_api.ann_wire import REPLY, WireError, decode_reply, encode_request, reply_size
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline

log = logging.getLogger(__name__)

MOST_IDLE = 4
"""Connections kept open to one process: as many as a worker has threads, and some."""
ROUNDS = 2
"""Times that each address of a process is tried for one question."""
NAME_S = 1.0
"""Time that a name may take to be found before the first question; then it is looked up beside the questions."""


class Place:
    """The addresses of host:port. Names are looked up aside: a name server that hangs holds no question."""

    def __init__(self, address: str) -> None:
        self._host, self._port = host_and_port(address)
        self._looking = threading.Lock()
        self.found: list[tuple[socket.AddressFamily, Any]] = []
        try:
            self._look(socket.AI_NUMERICHOST)
            self._is_name = False
        except OSError:
            self._is_name = True
            thread = self.look_again()
            if thread is not None:
                thread.join(NAME_S)

    def look_again(self) -> threading.Thread | None:
        """Looks a name up in a thread of its own, one at a time: it may have moved."""
        if not self._is_name or not self._looking.acquire(blocking=False):
            return None
        thread = threading.Thread(target=self._look_aside, name="shard-address", daemon=True)
        thread.start()
        return thread

    def _look_aside(self) -> None:
        try:
            self._look(0)
        except (OSError, UnicodeError) as error:
            log.warning("%s: no address is found: %s", self._host, error)
        finally:
            self._looking.release()

    def _look(self, flags: int) -> None:
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)
        self.found = [(family, where) for family, _, _, _, where in found]


class ShardProcess:
    """One process that holds shards: its address, its idle connections, its breaker. Thread-safe."""

    def __init__(self, address: str, breaker: Breaker) -> None:
        self._place = Place(address)
        self.address = address
        self.breaker = breaker
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def connections(self) -> Iterator[socket.socket | OSError]:
        """What to ask on, one after the other as long as they fail: idle ones, then new ones, or why there is none."""
        for _ in range(MOST_IDLE):
            idle = self._idle_one()
            if idle is None:
                break
            yield idle
        if not self._place.found:
            yield OSError("its name is not found")
        for _ in range(ROUNDS):
            for family, where in self._place.found:
                yield _begun(family, where)

    def _idle_one(self) -> socket.socket | None:
        """An idle connection that the other side has not closed, as it does when it is started anew."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            try:
                connection.setblocking(False)
                connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return connection
            except OSError:
                pass
            connection.close()

    def keep(self, connection: socket.socket) -> None:
        """Takes back a connection whose reply was read to its end."""
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def failed(self) -> None:
        self.breaker.failed()
        self._place.look_again()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _begun(family: socket.AddressFamily, where: Any) -> socket.socket | OSError:
    """A new connection that is on its way, or why it is not."""
    try:
        connection = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return error
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = connection.connect_ex(where)
    if code in (0, errno.EINPROGRESS):
        return connection
    connection.close()
    return OSError(code, os.strerror(code))


class _Question:
    """A request to one process and what came back so far; it goes on whenever its connection is ready."""

    def __init__(self, process: ShardProcess, request: bytes, waiting: selectors.BaseSelector) -> None:
        self.process = process
        self.why = ""
        self._request = request
        self._waiting = waiting
        self._tries = process.connections()

    def begin(self) -> bool:
        """Asks on the next connection that there is; false, and why, where there is none."""
        for connection in self._tries:
            if isinstance(connection, OSError):
                self.why = str(connection)
                continue
            self._connection, self._unsent, self._data = connection, memoryview(self._request), bytearray()
            self._waiting.register(connection, selectors.EVENT_WRITE, self)
            return True
        return False

    def go_on(self) -> Found | None:
        """The reply once it is whole, and then the connection is given back. Raises WireError, OSError."""
        try:
            if self._unsent:
                self._send()
                return None
            found = self._received()
        except BlockingIOError:
            return None
        except OSError as error:
            self.end()
            self.why = str(error)
            if self._data or not self.begin():  # what was idle may be closed, and what starts may listen again
                raise
            return None
        self._waiting.unregister(self._connection)
        self.process.keep(self._connection)
        return found

    def end(self) -> None:
        """Closes the connection."""
        self._waiting.unregister(self._connection)
        self._connection.close()

    def _send(self) -> None:
        code = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._unsent = self._unsent[self._connection.send(self._unsent) :]
        if not self._unsent:
            self._waiting.modify(self._connection, selectors.EVENT_READ, self)

    def _received(self) -> Found:
        """Reads what is there. Raises BlockingIOError where that is not all."""
        while True:
            part = self._connection.recv(1 << 16)
            if not part:
                raise ConnectionResetError("hung up")
            self._data += part
            if len(self._data) < REPLY.size:
                continue
            status, people, size = reply_size(bytes(self._data[: REPLY.size]))
            if len(self._data) >= REPLY.size + size:
                return decode_reply(status, people, bytes(self._data[REPLY.size : REPLY.size + size]))


class RemoteShards:
    """The shards of one index in other processes."""

    missing: tuple[str, ...] = ()

    def __init__(self, processes: Sequence[ShardProcess], artifact_id: str) -> None:
        self._processes = processes
        self._artifact_id = artifact_id

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        left_out: list[str] = []
        parts: list[Found] = []
        request = encode_request(self._artifact_id, query, k, deadline.left_s)
        with selectors.DefaultSelector() as waiting:
            for process in self._processes:
                if not process.breaker.allows():
                    left_out.append(process.address)
                    continue
                question = _Question(process, request, waiting)
                if not question.begin():
                    _leave_out(question, left_out)
            over = False
            while waiting.get_map() and not over:
                left = deadline.left_s
                over = left <= 0  # then what came meanwhile is still read
                for key, _ in waiting.select(max(left, 0)):
                    _go_on(key.data, parts, left_out)
            for key in list(waiting.get_map().values()):
                key.data.end()
                key.data.why = "late"
                _leave_out(key.data, left_out)
        every = [*left_out, *(shard for part in parts for shard in part.left_out)]
        return merged([(part.ids, part.scores) for part in parts], k, every)

    def close(self) -> None:
        for process in self._processes:
            process.close()


def _go_on(question: _Question, parts: list[Found], left_out: list[str]) -> None:
    try:
        found = question.go_on()
    except WireError as error:
        question.end()
        question.why = str(error)
        _leave_out(question, left_out)
    except OSError:
        _leave_out(question, left_out)
    else:
        if found is not None:
            question.process.breaker.succeeded()
            parts.append(found)


def _leave_out(question: _Question, left_out: list[str]) -> None:
    process = question.process
    if not process.breaker.open:
        log.warning("shards at %s are left out: %s", process.address, question.why)
    process.failed()
    left_out.append(process.address)
