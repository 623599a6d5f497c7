"""What a worker and a process that holds index shards say to each other: one request, one reply, little-endian.

request: magic, version, k, milliseconds left, dimensions, bytes of the index's id; the id; float32 [dimensions].
reply: magic, version, status, people, bytes of text; int64 [people] ids; float32 [people] scores; text: the shards left
out, by comma, or what went wrong.
"""

import socket
import struct
from dataclasses import dataclass

import numpy as np

from infra.errors import PymkError
from lookup_api.ann import Float32, Found

REQUEST = struct.Struct("<4sBxHIHH")
REPLY = struct.Struct("<4sBBHI")
MAGIC, VERSION = b"pymk", 1
OK, UNKNOWN_INDEX, FAILED = range(3)
MOST_PEOPLE, MOST_TEXT, MOST_DIMENSIONS, MOST_ID = 5000, 65_536, 4096, 128


class WireError(PymkError):
    """The other side does not speak this protocol, or refused."""


@dataclass(frozen=True)
class AnnRequest:
    artifact_id: str
    query: Float32
    k: int
    left_ms: int


def encode_request(artifact_id: str, query: Float32, k: int, left_s: float) -> bytes:
    name = artifact_id.encode()
    left_ms = max(0, min(int(left_s * 1000), 2**32 - 1))
    head = REQUEST.pack(MAGIC, VERSION, min(k, MOST_PEOPLE), left_ms, len(query), len(name))
    return head + name + np.ascontiguousarray(query, "<f4").tobytes()


def read_request(connection: socket.socket) -> AnnRequest | None:
    """None when the other side has hung up. Raises WireError, OSError."""
    head = read_exactly(connection, REQUEST.size)
    if head is None:
        return None
    magic, version, k, left_ms, dimensions, length = REQUEST.unpack(head)
    if (magic, version) != (MAGIC, VERSION):
        raise WireError(f"a request of {magic!r} version {version}, this side speaks {MAGIC!r} version {VERSION}")
    if not (0 < dimensions <= MOST_DIMENSIONS and length <= MOST_ID and 0 < k <= MOST_PEOPLE):
        raise WireError(f"a request for {k} people by {dimensions} dimensions is none that is answered")
    body = read_exactly(connection, length + 4 * dimensions)
    if body is None:
        raise WireError("a request that ends early")
    query = np.frombuffer(body, "<f4", dimensions, length)
    if not np.isfinite(query).all():
        raise WireError("a query that is not finite")
    return AnnRequest(body[:length].decode("ascii", "replace"), query, k, left_ms)


def encode_reply(status: int, found: Found | None, text: str) -> bytes:
    said = text.encode()[:MOST_TEXT]
    if found is None:
        return REPLY.pack(MAGIC, VERSION, status, 0, len(said)) + said
    head = REPLY.pack(MAGIC, VERSION, status, len(found.ids), len(said))
    return head + found.ids.astype("<i8").tobytes() + found.scores.astype("<f4").tobytes() + said


def reply_size(head: bytes) -> tuple[int, int, int]:
    """Status, people and bytes of the rest of a reply. Raises WireError."""
    magic, version, status, people, text = REPLY.unpack(head)
    if (magic, version) != (MAGIC, VERSION) or people > MOST_PEOPLE or text > MOST_TEXT:
        raise WireError(f"a reply of {magic!r} version {version}, this side speaks {MAGIC!r} version {VERSION}")
    return status, people, 12 * people + text


def decode_reply(status: int, people: int, body: bytes) -> Found:
    """Raises WireError for one that says it found nothing because something is wrong."""
    text = body[12 * people :].decode("utf-8", "replace")
    if status != OK:
        raise WireError(text or f"status {status}")
    ids = np.frombuffer(body, "<i8", people).astype(np.int64)
    scores = np.frombuffer(body, "<f4", people, 8 * people).astype(np.float32)
    return Found(ids, scores, tuple(text.split(",")) if text else ())


def read_exactly(connection: socket.socket, size: int) -> bytes | None:
    """So many bytes, None where the other side hangs up before the first. Raises WireError where it does so later."""
    parts: list[bytes] = []
    left = size
    while left:
        part = connection.recv(min(left, 1 << 16))
        if not part:
            if left == size:
                return None
            raise WireError(f"the other side hung up after {size - left} of {size} bytes")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
