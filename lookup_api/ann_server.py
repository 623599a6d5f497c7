"""A process that holds index shards for others: follows the store's releases, and answers over TCP.

`pymk shards` starts it. It opens the index of the release that CURRENT names, keeps that of the one before for workers
that have not followed yet, and answers by the artifact that is asked for. It trusts whoever reaches its port: bind it
to a network of the API's workers alone.
"""

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Sequence

import numpy as np

from infra.artifacts import open_sound_files
from infra.errors import PymkError
from infra.releases import ReleaseStore
from infra.store import open_store
from lookup_api.ann_local import LocalShards
from lookup_api.ann_wire import FAILED, OK, UNKNOWN_INDEX, AnnRequest, WireError, encode_reply, read_request
from lookup_api.deadline import Deadline
from lookup_api.live_parts import INDEX, VIEW

log = logging.getLogger(__name__)

KEPT = 2
"""Indexes that are open: the current release's, and the one's before."""
IDLE_S = 300.0
"""A connection that asks nothing for so long is closed."""


class ShardHolder:
    """The open indexes by artifact id, newest last. shards: numbers of those to hold, None for all."""

    def __init__(self, store_uri: str, shards: Sequence[int] | None) -> None:
        self._store_uri = store_uri
        self._wanted = shards
        self._open: dict[str, LocalShards] = {}

    def look(self) -> None:
        """Opens the index of the current release, if it is new. Failures are logged; what is open stays open."""
        try:
            store = open_store(self._store_uri)
            release = ReleaseStore(store).current()
            if release is None or INDEX not in release.artifacts:
                return
            artifact_id = release.artifacts[INDEX].artifact_id
            known = self._open.get(artifact_id)
            if known is not None and not known.missing:
                return
            opened, damaged = open_sound_files(store, INDEX, artifact_id, f"{VIEW}/")
            folders = {path.split("/")[1] for path in damaged}
            found = LocalShards.open(opened.path / VIEW, self._wanted, folders)
        except (PymkError, OSError) as error:
            log.error("no index is taken from %s: %s", self._store_uri, error)
            return
        found.find(np.zeros(found.dimensions, np.float32), 1, Deadline.after(60))
        others = {name: index for name, index in self._open.items() if name != artifact_id}
        self._open = dict([*others.items(), (artifact_id, found)][-KEPT:])
        log.info("index %s is open: %d shards, missing %s", artifact_id, len(found.shards), found.missing or "none")

    def answer(self, request: AnnRequest) -> bytes:
        shards = self._open.get(request.artifact_id)
        if shards is None:
            return encode_reply(UNKNOWN_INDEX, None, f"index {request.artifact_id} is not open here")
        if len(request.query) != shards.dimensions:
            return encode_reply(FAILED, None, f"a query of {len(request.query)} dimensions, not {shards.dimensions}")
        found = shards.find(request.query, request.k, Deadline.after(request.left_ms / 1000))
        return encode_reply(OK, found, ",".join(found.left_out))


class ShardServer(socketserver.ThreadingTCPServer):
    """Answers on one address until it is told to stop."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], holder: ShardHolder) -> None:
        self.holder = holder
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: ShardServer

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(IDLE_S)
        try:
            while (request := read_request(connection)) is not None:
                connection.sendall(self.server.holder.answer(request))
        except WireError as error:
            log.warning("closed a connection: %s", error)
            connection.sendall(encode_reply(FAILED, None, str(error)))
        except OSError:
            return  # gone, or idle for too long


def serve_shards(store_uri: str, host: str, port: int, shards: Sequence[int] | None, poll_s: float) -> None:
    """Serves until the process is ended; looks for a new release every `poll_s` seconds."""
    holder = ShardHolder(store_uri, shards)
    holder.look()

    def follow() -> None:
        while True:
            time.sleep(poll_s)
            holder.look()

    with ShardServer((host, port), holder) as server:
        log.info("index shards of %s on %s:%d", store_uri, *server.server_address[:2])
        threading.Thread(target=follow, name="release-watch", daemon=True).start()
        server.serve_forever()
