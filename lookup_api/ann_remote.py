"""Index shards in other processes: each is asked at once, and what came back before the deadline is merged.

A process that is late, gone or of another release is left out and named by its address. Its connection is closed with
it, so that a late reply is never taken for that of a later question; a breaker keeps it from being asked each time.
"""

import logging
import selectors
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.errors import UsageError
from lookup_api.ann import Float32, Found, merged
from lookup_api.ann_wire import REPLY, WireError, decode_reply, encode_request, reply_size
from lookup_api.breaker import Breaker, retried
from lookup_api.deadline import Deadline

log = logging.getLogger(__name__)

MOST_IDLE = 4
"""Connections kept open to one process: as many as a worker has threads, and some."""


class ShardProcess:
    """One process that holds shards: its address, its idle connections, its breaker. Thread-safe."""

    def __init__(self, address: str, breaker: Breaker) -> None:
        host, separator, port = address.rpartition(":")
        if not separator or not host or not port.isdigit() or not 0 < int(port) < 65_536:
            raise UsageError(f"ladder.ann_shards: {address!r} is not host:port", "Write for example 10.0.0.7:8101.")
        self.address = address
        self.breaker = breaker
        self._where = (host.strip("[]"), int(port))
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def asked(self, request: bytes, deadline: Deadline) -> socket.socket:
        """A connection on which the request is on its way. Raises OSError."""
        while (connection := self._idle_one()) is not None:
            try:
                connection.settimeout(max(deadline.left_s, 0.001))
                connection.sendall(request)
                return connection
            except OSError:
                connection.close()
        return retried(lambda: self._connected(request, deadline), deadline, (ConnectionError,))

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

    def _connected(self, request: bytes, deadline: Deadline) -> socket.socket:
        connection = socket.create_connection(self._where, max(deadline.left_s, 0.001))
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
        except BaseException:
            connection.close()
            raise
        return connection

    def keep(self, connection: socket.socket) -> None:
        """Takes back a connection whose reply was read to its end."""
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


@dataclass
class _Reply:
    process: ShardProcess
    connection: socket.socket
    data: bytearray = field(default_factory=bytearray)

    def read(self) -> Found | None:
        """Reads what is there; the reply once it is whole. Raises WireError, OSError."""
        part = self.connection.recv(1 << 16)
        if not part:
            raise WireError("hung up")
        self.data += part
        if len(self.data) < REPLY.size:
            return None
        status, people, size = reply_size(bytes(self.data[: REPLY.size]))
        if len(self.data) < REPLY.size + size:
            return None
        return decode_reply(status, people, bytes(self.data[REPLY.size : REPLY.size + size]))


class RemoteShards:
    """The shards of one index in other processes."""

    missing: tuple[str, ...] = ()

    def __init__(self, processes: Sequence[ShardProcess], artifact_id: str) -> None:
        self._processes = processes
        self._artifact_id = artifact_id

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        request = encode_request(self._artifact_id, query, k, deadline.left_s)
        left_out = [process.address for process in self._processes if not process.breaker.allows()]
        parts: list[Found] = []
        with selectors.DefaultSelector() as waiting:
            for process in self._processes:
                if process.address not in left_out:
                    self._send(process, request, deadline, waiting, left_out)
            while waiting.get_map() and (left := deadline.left_s) > 0:
                for key, _ in waiting.select(left):
                    self._receive(key.data, waiting, parts, left_out)
            for key in list(waiting.get_map().values()):
                self._failed(key.data, "late", waiting, left_out)
        every = [*left_out, *(shard for part in parts for shard in part.left_out)]
        return merged([(part.ids, part.scores) for part in parts], k, every)

    def close(self) -> None:
        for process in self._processes:
            process.close()

    def _send(
        self,
        process: ShardProcess,
        request: bytes,
        deadline: Deadline,
        waiting: selectors.BaseSelector,
        left_out: list[str],
    ) -> None:
        try:
            connection = process.asked(request, deadline)
        except OSError as error:
            process.breaker.failed()
            log.warning("shards at %s are left out: %s", process.address, error)
            left_out.append(process.address)
            return
        waiting.register(connection, selectors.EVENT_READ, _Reply(process, connection))

    def _receive(self, reply: _Reply, waiting: selectors.BaseSelector, parts: list[Found], left_out: list[str]) -> None:
        try:
            found = reply.read()
        except (WireError, OSError) as error:
            self._failed(reply, str(error), waiting, left_out)
            return
        if found is not None:
            waiting.unregister(reply.connection)
            reply.process.breaker.succeeded()
            reply.process.keep(reply.connection)
            parts.append(found)

    def _failed(self, reply: _Reply, why: str, waiting: selectors.BaseSelector, left_out: list[str]) -> None:
        waiting.unregister(reply.connection)
        reply.connection.close()
        if not reply.process.breaker.open:
            log.warning("shards at %s are left out: %s", reply.process.address, why)
        reply.process.breaker.failed()
        left_out.append(reply.process.address)
