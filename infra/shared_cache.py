"""A cache in Redis that all workers of a fleet share: bytes by name, each for a while.

It only saves work: whoever uses it must do without when it raises.
"""

from infra.redis_connection import connect, explained, shown

PREFIX = "pymk:live:"
CLEARED = 1000
"""Names removed at a time."""


class SharedCache:
    """uri: of a Redis. Thread-safe. Everything raises StoreError where Redis fails or is late."""

    def __init__(self, uri: str, timeout_s: float, life_s: float) -> None:
        self._shown = shown(uri)
        self._life_ms = int(life_s * 1000)
        self._redis = connect(uri, timeout_s)

    def get(self, name: str) -> bytes | None:
        with explained(self._shown):
            found: bytes | None = self._redis.get(PREFIX + name)  # type: ignore[assignment]
        return found

    def put(self, name: str, value: bytes) -> None:
        with explained(self._shown):
            self._redis.set(PREFIX + name, value, px=self._life_ms)

    def clear(self) -> int:
        """Removes everything; returns how many there were. Lists name people: whoever is erased must leave them."""
        removed, cursor = 0, 0
        with explained(self._shown):
            while True:
                cursor, names = self._redis.scan(cursor, match=f"{PREFIX}*", count=CLEARED)  # type: ignore[misc]
                if names:
                    removed += int(self._redis.unlink(*names))  # type: ignore[arg-type]
                if not cursor:
                    return removed

    def close(self) -> None:
        self._redis.close()
