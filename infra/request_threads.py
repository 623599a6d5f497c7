"""How many requests a worker of the API has in hand at once."""

from infra.redis_connection import names_redis
from infra.settings import Settings

ASKING = 4
"""Of a worker that asks other hosts: some wait for them while one answers."""

SPARE, SPARE_VARIABLE = 16, "PYMK_SPARE_THREADS"
"""Threads of a server beyond those, for while requests wait for their bodies; and what tells a worker of them."""


def threads_of(settings: Settings) -> int:
    """Request threads of a worker: the setting, else one where all is on this machine.

    With two, every read hands Python's lock to and fro: a fifth fewer answers, and twice their p99.
    """
    own, ladder = settings.api, settings.ladder
    asks = names_redis(own.facts) or own.tables or ladder.l2 or ladder.ann_shards
    return own.threads or (ASKING if asks else 1)
