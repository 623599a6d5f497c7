"""What an event changes, how changes merge whatever their order, and what a viewer's records say: for every form.

A record is what one viewer must know of one other person in one relation: (other, relation, at_us, value).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from infra.events import EVENT_TYPES, Event
from infra.live_facts import (
    BANNED,
    BLOCKED,
    CONNECTED,
    DEACTIVATED,
    DISMISSED,
    OPTED_OUT,
    ViewerFacts,
)
from infra.settings import Settings

CONNECTION, BLOCKS, BLOCKED_BY, DISMISSAL, SHOWN = range(5)
"""Relations. Of all but SHOWN the value is 1 while the fact holds, and 0 after; of SHOWN it counts."""
RULE_OF_RELATION = (CONNECTED, BLOCKED, BLOCKED, DISMISSED)
MOST_SHOWN = 65_535
MOST_RECORDS = 1000
"""Records of a viewer above which the oldest of SHOWN are forgotten."""

STATES = (DEACTIVATED, BANNED, OPTED_OUT)
_GRAVEST_FIRST = (1, 2, 0)
"""Places in STATES by which rule is told first."""
RESTRICTING = {DEACTIVATED: (0, 1), "reactivated": (0, 0), BANNED: (1, 1), "unbanned": (1, 0), OPTED_OUT: (2, 1),
               "opted_in": (2, 0)}  # fmt: skip
"""Event of one person -> place in STATES, and whether it hides the person."""

DAY_US = 86_400_000_000

_PAIRED: Mapping[str, tuple[int, int, int]] = {
    "connected": (CONNECTION, CONNECTION, 1),
    "disconnected": (CONNECTION, CONNECTION, 0),
    "blocked": (BLOCKS, BLOCKED_BY, 1),
    "unblocked": (BLOCKS, BLOCKED_BY, 0),
}
CODES = {name: code for code, name in enumerate(EVENT_TYPES)}
"""Event type -> its number in a log. Numbers are kept for good: add types at the end."""


class Change(NamedTuple):
    """One record to merge. barring: whether it may change whom the viewer may see."""

    viewer: int
    other: int
    relation: int
    at_us: int
    value: int

    @property
    def barring(self) -> bool:
        return self.relation != SHOWN


Record = tuple[int, int, int, int, int]
"""(viewer, other, relation, at_us, value)."""


def changes_of(event: Event) -> tuple[Change, ...]:
    """What a pair's event changes, one record for each of the two whom it concerns."""
    user, other, at = event.user_id, event.other_id, event.at_us
    if other is None:
        return ()
    if event.type in _PAIRED:
        mine, theirs, value = _PAIRED[event.type]
        return Change(user, other, mine, at, value), Change(other, user, theirs, at, value)
    if event.type == "dismissed":
        return (Change(user, other, DISMISSAL, at, 1),)
    return (Change(user, other, SHOWN, at, int(event.type == "shown")),)


def merged(old: tuple[int, int] | None, change: Change, fatigue_us: int) -> tuple[int, int]:
    """(at_us, value) of a record after a change; the same as before where the change came too late to count."""
    new = (change.at_us, change.value)
    if old is None:
        return new
    if change.relation != SHOWN:
        return max(old, new)
    at, count = old
    if not change.value:
        return new if change.at_us >= at else old
    if not count and change.at_us <= at:
        return old
    if change.at_us - at > fatigue_us:
        return new
    return max(at, change.at_us), min(count + 1, MOST_SHOWN)


def hiding_rule(holds: Sequence[int]) -> str | None:
    """The rule that hides a person, from whether each of STATES holds."""
    return next((STATES[place] for place in _GRAVEST_FIRST if holds[place]), None)


class Expiry(NamedTuple):
    """Microseconds for which a dismissal holds and a showing is remembered."""

    dismissal_us: int
    fatigue_us: int

    @classmethod
    def of(cls, settings: Settings) -> "Expiry":
        return cls(settings.graph.dismissal_days * DAY_US, settings.events.fatigue_days * DAY_US)

    def oldest(self, now_us: int) -> tuple[int, int]:
        """Times from which dismissals and showings still count."""
        return now_us - self.dismissal_us, now_us - self.fatigue_us


def facts_of(
    records: Iterable[Record],
    hidden: Mapping[int, str],
    viewer: int,
    version: int,
    oldest: tuple[int, int],
    hidden_version: int,
) -> ViewerFacts:
    """records: of this viewer, those of one person by relation. Of several rules the first is told, but a block before
    a connection, as a friend counts for somebody whom the viewer may see.

    oldest: times from which dismissals and showings still count, µs.
    """
    barred: dict[int, str] = {}
    fatigue: dict[int, int] = {}
    dismissed_after, shown_after = oldest
    for _, other, relation, at, value in records:
        if not value:
            continue
        if relation < DISMISSAL:
            barred[other] = RULE_OF_RELATION[relation]
        elif relation == SHOWN:
            if at >= shown_after:
                fatigue[other] = value
        elif at >= dismissed_after and other not in barred:
            barred[other] = DISMISSED
    return ViewerFacts(barred, hidden, fatigue, viewer in hidden, version, hidden_version)
