"""Live facts: what happened since the releases were made, as every request must know it.

Events are recorded durably and at once change what is known of the people they name. Two forms keep the same promises:
infra.live_lmdb for the workers of one machine, infra.live_redis for a fleet. Of opposing events the latest counts
(`at`), of two at the same time the restricting one, as at night; in whatever order they arrive.
Facts only keep people out: what lifts one (unblocked, reactivated, …) brings back nobody whom a release left out.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from infra.errors import UsageError
from infra.events import Event, Refusal
from infra.settings import Settings
from infra.store import folder_or_none

CONNECTED, BLOCKED, DISMISSED = "connected", "blocked", "dismissed"
DEACTIVATED, BANNED, OPTED_OUT, ERASED = "deactivated", "banned", "opted_out", "erased"
"""Names of the rules, as metrics and explanations call them."""

REUSED_ID = Refusal("event_id_reused", "event_id: another event was stored under it before.")
ERASED_PERSON = Refusal("erased_person", "The event names a person who was erased.")

NO_EVICTION = "Set its maxmemory-policy to noeviction, and give caches a Redis of their own."


@dataclass(frozen=True, slots=True)
class ViewerFacts:
    """What must be known to answer one viewer.

    barred: person -> rule, for this viewer alone: connected, blocked by either of the two, dismissed and not expired.
    hidden: person -> rule, nobody may see them. It is shared by all answers, follows new events, and may be large: ask
    for the people in question and never iterate over it.
    fatigue: person -> times shown to this viewer since a last reaction. viewer_hidden: this viewer is hidden and is
    shown nobody. version: changes whenever `barred` does, but for a dismissal that expires and people who are erased.
    hidden_version: changes whenever `hidden` does.
    """

    barred: Mapping[int, str]
    hidden: Mapping[int, str]
    fatigue: Mapping[int, int]
    viewer_hidden: bool
    version: int
    hidden_version: int


class LiveFacts(Protocol):
    """Thread-safe. Whatever cannot be read or stored raises StoreError."""

    def of(self, viewer: int) -> ViewerFacts:
        """One read; it sees every event that was recorded before."""
        ...

    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        """Stores events, durable on return; one whose id was stored before is not stored again.

        Returns the places of events that were refused. Raises StoreError (full, down), and then stored none of them.
        """
        ...

    def close(self) -> None: ...


class LoggedEvent(NamedTuple):
    """An event as the log keeps it: without its id, in the order of being recorded."""

    type: str
    user_id: int
    other_id: int | None
    at_us: int
    position: int | None
    model: str | None = None


@dataclass(frozen=True)
class LogBatch:
    """name: the same for a batch that begins at the same place, and no other's. mark: what `exported` takes."""

    name: str
    events: Sequence[LoggedEvent]
    mark: str

    @property
    def told_us(self) -> int:
        """A time that has come, whatever this machine's clock says: the median of when its events were, µs."""
        return sorted(event.at_us for event in self.events)[len(self.events) // 2]

    def trusted_us(self, now_us: int) -> int:
        """`now_us`, unless that is a clock that is ahead of the events."""
        return min(now_us, self.told_us)


class EventLog(Protocol):
    """The recorded events on their way to the lake. A batch is handed out again until it is marked as exported."""

    def unexported(self, most: int) -> LogBatch | None:
        """The oldest events that were not exported, None when there are none."""
        ...

    def exported(self, batch: LogBatch, keep_days: int) -> None:
        """Notes that a batch is in the lake; exported events leave the log after `keep_days`, ids with them."""
        ...

    def ended_at(self, pairs: Sequence[tuple[str, int, int]]) -> list[int | None]:
        """When each fact (connected or blocked, user_id, other_id) was last taken back, if it does not hold now, µs."""
        ...


@dataclass(frozen=True)
class Erased:
    """What erasing a person touched: rows by store. viewers: whose own facts named the person."""

    rows: Mapping[str, int]
    viewers: Sequence[int]


class Erasure(Protocol):
    def erase(self, user_id: int, at_us: int) -> Erased:
        """Bars the person from every answer at once and for good, and removes all else that is known of them."""
        ...

    def knows(self, user_id: int) -> bool:
        """Whether anything here names the person: facts, state, log or the record of erasures. A look at all."""
        ...

    def erased(self) -> Mapping[int, int]:
        """Everyone who was erased -> when, µs since 1970."""
        ...


class LiveStore(LiveFacts, EventLog, Erasure, Protocol):
    """What each form is."""

    def forget_expired(self, told_us: int) -> int:
        """Deletes dismissals and showings that no longer count, a look at all facts; returns how many.

        told_us: a time that has surely come, as what is deleted is gone for good and this machine's clock may be ahead.
        """
        ...


def open_live_facts(uri: str, settings: Settings) -> LiveStore:
    """Opens the live facts in a folder (made if it is missing) or at redis://, rediss:// or unix://.

    Raises UsageError for a URI that names neither; StoreError where the folder or the server cannot be used.
    """
    if _is_redis(uri):
        from infra.live_redis import RedisLiveFacts

        return RedisLiveFacts.open(uri, settings)
    if folder := folder_or_none(uri):
        from infra.live_lmdb import LmdbLiveFacts

        return LmdbLiveFacts.open(folder, settings)
    raise UsageError(f"{uri!r}: keeps no live facts", "Give api.facts a folder, redis://… or rediss://….")


def evicting_policy_at(uri: str, settings: Settings) -> str:
    """The policy by which the Redis at `uri` forgets live facts once its memory is short, empty where it does not.

    Raises StoreError where it cannot be asked.
    """
    if not _is_redis(uri):
        return ""
    from infra.live_redis import RedisLiveFacts

    with closing(RedisLiveFacts.open(uri, settings)) as facts:
        return facts.evicting_policy()


def _is_redis(uri: str) -> bool:
    return urlsplit(uri).scheme.removesuffix("+cluster") in ("redis", "rediss", "unix")


def facts_uri(settings: Settings, store_uri: str) -> str:
    """Where live facts are: `api.facts`, else the folder `live` of a store that is a folder.

    Raises UsageError for another store without the setting.
    """
    if settings.api.facts:
        return settings.api.facts
    if folder := folder_or_none(store_uri):
        return str(folder / "live")
    raise UsageError(f"{store_uri}: no place for live facts", "Set api.facts to a folder, redis:// or rediss:// URI.")
