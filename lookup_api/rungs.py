"""The rungs that read what the night left: its ranking, friends of friends, the last good list, popular people.

Live ranking is in lookup_api.live_rung.
"""

from collections.abc import Callable
from dataclasses import dataclass

from infra.blobs import decode_bars, decode_neighbours, first_page
from infra.kv import BARS, NEIGHBOURS, RANKINGS, USERS
from lookup_api.bounded_cache import BoundedCache
from lookup_api.breaker import Breaker
from lookup_api.circle import bars_by_night, circle_of, is_outdated
from lookup_api.ladder import Ask, Offer, RankedBy
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.ranking.rules import NOT_FOR_USER
from lookup_api.served_release import ServedRelease
from lookup_api.written_list import MUTUAL, written_list

KEPT = 100
"""People that a heuristic list holds."""


Listed = Callable[[ServedRelease, int], tuple[RankedBy, bytes] | None]


def none_listed(release: ServedRelease, user_id: int) -> None:
    """The release's own lists are everybody's."""


@dataclass(frozen=True)
class Precomputed:
    """The nightly ranking of a user the release knows, unless the user has made `new_friends` friends since."""

    breaker: Breaker
    new_friends: int
    source: str = "precomputed"
    listed: Listed = none_listed
    """The list that a routed model ranked at night."""

    def offer(self, ask: Ask) -> Offer | None:
        blob = ask.release.tables.get(RANKINGS, ask.query.user_id)
        if blob is None:
            return None
        if len(ask.facts.barred) >= self.new_friends and ask.release.ranks_live and is_outdated(ask, self.new_friends):
            return None
        if found := self.listed(ask.release, ask.query.user_id):
            return Offer(found[1], first_page(found[1]), by=found[0])
        return Offer(blob, first_page(blob))


@dataclass(frozen=True)
class Heuristic:
    """Friends of friends by resource allocation, over the friends that the release stores and those made since."""

    breaker: Breaker
    source: str = "heuristic"

    def offer(self, ask: Ask) -> Offer | None:
        circle = circle_of(ask)
        if circle is None or not circle.complete:
            return None
        ask.deadline.check("friends of friends")
        best = circle.near.best(KEPT)
        people = best.ids.tolist()
        if not people:
            return None
        users = ask.release.users(people)
        groups = [users.groups(place) for place in range(len(people))]
        reasons, counts = [(MUTUAL,)] * len(people), best.common.tolist()
        blob = written_list(people, best.allocation.tolist(), reasons, counts, groups, ask.release.group_rules)
        return Offer(blob)


@dataclass(frozen=True)
class Kept:
    """A last good list, of the release it was made from."""

    release_id: str
    blob: bytes


@dataclass(frozen=True)
class Stale:
    """The list that last answered the user in this process, or the stored one that newer friends outdate.

    A list of an earlier release is shown only where this one says whom it must not name, and without those whom this
    one does not know: who left may have been kept from the user meanwhile.
    """

    breaker: Breaker
    kept: BoundedCache[Kept]
    counts: LadderMetrics
    source: str = "stale"

    def offer(self, ask: Ask) -> Offer | None:
        user_id, release = ask.query.user_id, ask.release
        kept = self.kept.get(user_id)
        self.counts.cache("last_good", kept is not None)
        if kept is None:
            blob = release.tables.get(RANKINGS, user_id)
            return None if blob is None else Offer(blob)
        if kept.release_id == release.release_id:
            return Offer(kept.blob)
        bars = bars_by_night(release.tables, user_id)
        if bars is None:
            return None
        offer = Offer(kept.blob)
        listed = offer.ranking.ids()
        known = release.tables.get_many(USERS, listed)
        left = [person for person, blob in zip(listed, known, strict=True) if blob is None]
        offer.bars = (dict.fromkeys([*bars.tolist(), *left], NOT_FOR_USER),)
        return offer


@dataclass(frozen=True)
class Popular:
    """The most connected people, for a user the release does not know or has nobody left for."""

    breaker: Breaker
    source: str = "popular"

    def offer(self, ask: Ask) -> Offer | None:
        popular, blob = ask.release.popular, ask.release.tables.get(NEIGHBOURS, ask.query.user_id)
        if blob is None:  # who was inactive at night has nothing but bars
            more = ask.release.tables.get(BARS, ask.query.user_id)
            bars = () if more is None else (dict.fromkeys(decode_bars(more), NOT_FOR_USER),)
            return Offer(b"", bars=bars, decoded=popular)
        barred = [popular.id_at(place) for place in decode_neighbours(blob).barred if place < len(popular)]
        return Offer(b"", bars=(dict.fromkeys(barred, NOT_FOR_USER),), decoded=popular)
