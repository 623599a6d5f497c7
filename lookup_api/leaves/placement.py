"""Which leaves a version of a model is placed on: shuffle sharding (MacCarthaigh, "Shuffle Sharding", 2014)
by rendezvous hashing (Thaler and Ravishankar, 1998).

Every version has a few leaves of its own, drawn by a hash: whoever breaks its leaves takes down no other version but
those that drew just the same ones. A leaf that is added or removed moves only what it draws, or had.
"""

import hashlib
from collections.abc import Sequence

from infra.model_routes import ModelRef


def shard_of(model: ModelRef, leaves: Sequence[str], size: int) -> tuple[str, ...]:
    """The `size` leaves that draw the version highest, best first; all of them where they are fewer."""
    return tuple(sorted(leaves, key=lambda leaf: (_draw(model, leaf), leaf), reverse=True)[:size])


def _draw(model: ModelRef, leaf: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{model}\0{leaf}".encode(), digest_size=8).digest(), "big")
