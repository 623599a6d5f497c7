"""Rate limits of a whole fleet: each process counts by itself and tells Redis every moment what it let through.

No request waits for Redis. In return a fleet may let through what its processes spend until they have heard of each
other, at most a tenth of a second later. Without Redis each process goes on with its own count.
"""

import hashlib
import logging
import threading
from collections.abc import Sequence

from infra.errors import StoreError
from infra.live_stream import Link
from infra.redis_connection import explained, shown
from lookup_api.rate_limits import RateLimit

log = logging.getLogger(__name__)

EVERY_S = 0.1
LONGEST_WAIT_S = 5.0
PREFIX = "{pymk:rate}:"
"""One hash slot: a cluster keeps all on one shard."""
CHUNK = 1000

PAY = """
local time, most, found = redis.call('TIME'), tonumber(ARGV[1]), {}
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
for at, key in ipairs(KEYS) do
  local paid = math.max(tonumber(redis.call('GET', key) or '0'), now) + tonumber(ARGV[at + 1])
  paid = math.min(paid, now + most)
  redis.call('SET', key, string.format('%.6f', paid), 'PX', math.ceil((paid - now) * 1000) + 1)
  found[at] = tostring(paid - now)
end
return found
"""
"""Adds what was spent (ARGV from the second, seconds) to the time that each name has paid for, at most ARGV[1] ahead,
and returns how far ahead they are. The clock is Redis's own."""


class SharedRates:
    """Keeps the limits of this process in step with those of others. Start it once; stop it with the app."""

    def __init__(self, uri: str, limits: Sequence[RateLimit], timeout_s: float) -> None:
        self._limits = limits
        self._link, self._shown = Link(uri, timeout_s), shown(uri)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shared-rates", daemon=True)
        self._failures = 0

    def start(self) -> None:
        for limit in self._limits:
            limit.telling = True
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    def step(self) -> None:
        """Tells and learns once. Raises StoreError; what was spent meanwhile is not told later."""
        for limit in self._limits:
            spent = list(limit.take_spent().items())
            for start in range(0, len(spent), CHUNK):
                self._tell(limit, spent[start : start + CHUNK])

    def _tell(self, limit: RateLimit, spent: Sequence[tuple[str, int]]) -> None:
        keys = [redis_key(limit.kind, name) for name, _ in spent]
        seconds = [requests / limit.per_s for _, requests in spent]
        with explained(self._shown):
            found = self._link.client.eval(PAY, len(keys), *keys, 2 * limit.burst_s, *seconds)
        for (name, _), ahead in zip(spent, found, strict=True):
            limit.learn(name, float(ahead))

    def _run(self) -> None:
        while not self._stop.wait(min(LONGEST_WAIT_S, EVERY_S * 2**self._failures)):
            try:
                self.step()
                if self._failures:
                    log.warning("rate limits are shared again")
                self._failures = 0
            except StoreError as error:
                if not self._failures:
                    log.error("rate limits are each process's own until Redis answers: %s", error)
                self._failures = min(self._failures + 1, 10)


def redis_key(kind: str, name: str) -> str:
    """Names are hashed: one may be an API key."""
    return f"{PREFIX}{kind}:{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}"
