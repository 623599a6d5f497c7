"""A cache in this process, bounded in bytes and in the age of what it holds.

Reading takes no lock: an entry is found by one dictionary look-up and marked as used. What was not used since it came
or since it was last spared is dropped first (second chance, the clock of Corbató, 1968). What costs little to make
again is kept from the second time on only: of the many keys that come once none then pushes out one that comes often
(the doorkeeper of TinyLFU: Einziger, Friedman and Manes, 2017).
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")
ENTRY_BYTES = 300
"""What an entry takes beside its value: key, record, places in the dictionary."""
DOORKEEPER = 1
"""Keys that are remembered to have come once, for each entry: within ENTRY_BYTES."""


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    until_s: float
    size: int
    used: bool = False


class BoundedCache(Generic[V]):
    """most_bytes: of values and entries together; 0 turns it off. life_s: how long an entry counts."""

    def __init__(self, most_bytes: int, life_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most_bytes
        self._life_s = life_s
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()  # finding the oldest of a dict takes a scan
        self._lock = threading.Lock()
        self._seen_once: set[int] = set()
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return self._most > 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.until_s:
            return None
        entry.used = True
        return entry.value

    def put(self, key: Hashable, value: V, size: int, cheap: bool = False) -> None:
        """size: bytes of the value. What is larger than the whole cache is not kept.

        cheap: where something else would have to go for it, it is kept only if it was put before, not long ago.
        """
        size += ENTRY_BYTES
        if size > self._most:
            return
        with self._lock:
            if cheap and self.size_bytes + size > self._most and key not in self._entries and self._is_first(key):
                return
            self._drop(key)
            while self.size_bytes + size > self._most:
                self._evict()
            self._entries[key] = _Entry(value, self._clock() + self._life_s, size)
            self.size_bytes += size

    def _is_first(self, key: Hashable) -> bool:
        """Whether it was not put lately; all is forgotten when as many came as there are entries."""
        told = hash(key)
        if told in self._seen_once:
            self._seen_once.discard(told)
            return False
        if len(self._seen_once) >= DOORKEEPER * len(self._entries):
            self._seen_once.clear()
        self._seen_once.add(told)
        return True

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._seen_once.clear()
            self.size_bytes = 0

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size

    def _evict(self) -> None:
        """Drops the oldest entry that was not used, sparing the used ones once."""
        while True:
            key = next(iter(self._entries))
            entry = self._entries[key]
            if not entry.used or self._clock() >= entry.until_s:
                self._drop(key)
                return
            entry.used = False
            self._entries.move_to_end(key)
