"""Many leaf processes as one leaf: every version of a model is asked of its own few, and of the others of them where
one is gone.

Of its leaves the one with the fewest requests in hand is asked, so that all of them have the model open. Nothing is
asked twice while the first may still answer, but for a leaf that took its share of the time without a word.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry

from infra.model_routes import ModelRef
from infra.settings import Settings
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.leaf_metrics import HostMetrics, SenderMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.placement import shard_of
from lookup_api.leaves.protocol import Leaf, LeafFailed, LeafLost, ModelLoading, Timed
from lookup_api.ranking.scorers import Array, Float32

log = logging.getLogger(__name__)

FIRST_SHARE = 0.6
"""Of the time that is left, what a leaf has where another could be asked after it."""
LOST = 3
"""Requests of a version more than answers with which a leaf went, after which the version is left alone."""
MOST_PLACED = 10_000
"""Versions whose placement is kept."""


class _Member:
    """A leaf, and how many requests it has in hand of this process; counted without a lock, as being off by some does
    no harm."""

    __slots__ = ("in_hand", "leaf")

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.in_hand = 0


class LeafFleet:
    """Safe to use from any thread."""

    def __init__(
        self,
        leaves: Mapping[str, Leaf],
        shard_size: int,
        counts: SenderMetrics,
        breaker: Callable[[str], Breaker],
    ) -> None:
        """leaves: by address. breaker: makes one, by name, for a version that ends its leaves."""
        self._members = {address: _Member(leaf) for address, leaf in leaves.items()}
        self._size = shard_size
        self.counts = counts
        self._breaker = breaker
        self._placed: dict[ModelRef, tuple[tuple[_Member, ...], Breaker]] = {}
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """Raises as every leaf does; LeafFailed where none of the model's leaves could score."""
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Raises as `score`."""
        members, breaker = self._placed.get(model) or self._place(model)
        if not breaker.allows():
            raise LeafFailed(f"{model}: its leaves ended while they scored, so it is left alone for a while")
        asked = self._in_order(members)
        for at, member in enumerate(asked):
            is_last = at == len(asked) - 1
            try:
                timed = self._asked(member, model, columns, deadline, is_last)
            except (LeafFailed, TooLate) as error:
                if isinstance(error, LeafLost):
                    breaker.failed()
                if is_last or deadline.left_s <= 0:
                    raise
                continue
            breaker.succeeded()
            if at:
                self.counts.moved.inc()
            return timed
        raise LeafFailed(f"{model}: no leaf is there")

    def shard(self, model: ModelRef) -> tuple[str, ...]:
        """The addresses of the leaves that a version is placed on."""
        return shard_of(model, list(self._members), self._size)

    def close(self) -> None:
        for member in self._members.values():
            member.leaf.close()

    def _place(self, model: ModelRef) -> tuple[tuple[_Member, ...], Breaker]:
        with self._lock:
            if len(self._placed) >= MOST_PLACED:
                self._placed = {}
            members = tuple(self._members[address] for address in self.shard(model))
            return self._placed.setdefault(model, (members, self._breaker(f"leaves of {model}")))

    def _in_order(self, members: tuple[_Member, ...]) -> list[_Member]:
        """Those with the fewest requests in hand first; among equals each in turn."""
        turn = next(self._turn) % len(members)
        return sorted((*members[turn:], *members[:turn]), key=lambda one: one.in_hand)

    def _asked(
        self, member: _Member, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline, is_last: bool
    ) -> Timed:
        """is_last: where none could be asked after it. A leaf that loads the model is not given up for another, which
        would have to load it as well."""
        member.in_hand += 1
        try:
            if is_last:
                return member.leaf.timed(model, columns, deadline)
            try:
                return member.leaf.timed(model, columns, deadline.within(deadline.left_s * FIRST_SHARE))
            except ModelLoading:
                return member.leaf.timed(model, columns, deadline)
        finally:
            member.in_hand -= 1


def open_leaf(store_uri: str, settings: Settings, registry: CollectorRegistry) -> Leaf:
    """What scores by models of the store's registry: leaf processes, where the settings name some, or this process.

    Connects to none and loads nothing yet, so that a process may fork after it.
    """
    if settings.leaves.addresses:
        return open_fleet(settings, SenderMetrics(registry))
    return LocalLeaf(store_uri, settings.leaves, HostMetrics(registry), partial(_breaker, settings))


def open_fleet(settings: Settings, counts: SenderMetrics, spare: bool = False) -> LeafFleet:
    """The leaf processes that the settings name. spare: they score for it only while they do for nobody else."""
    from lookup_api.leaves.remote_leaf import RemoteLeaf  # with Arrow, which this process does without otherwise

    leaves = settings.leaves
    remote = {
        address: RemoteLeaf(address, leaves, counts, _breaker(settings, f"leaf {address}"), spare)
        for address in dict.fromkeys(leaves.addresses)
    }
    return LeafFleet(remote, leaves.shard_size, counts, partial(_breaker, settings, failures=LOST))


def _breaker(settings: Settings, name: str, failures: int | None = None) -> Breaker:
    return Breaker(name, failures or settings.ladder.breaker_failures, settings.ladder.breaker_wait_s)
