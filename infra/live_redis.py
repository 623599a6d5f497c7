"""Live facts in Redis, for a fleet: facts in hashes, events on a stream that consumer groups read.

A request's events are one script, so that they are stored, known and logged at once. They are as durable as Redis is:
`appendonly yes` with `appendfsync always`, or replicas (`events.redis_replicas`).
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from secrets import token_hex
from typing import Any

import orjson
import redis

from infra.errors import StoreError, UsageError
from infra.events import Event, Refusal
from infra.live_facts import (
    BLOCKED,
    ERASED,
    ERASED_PERSON,
    NO_EVICTION,
    REUSED_ID,
    Erased,
    LogBatch,
    ViewerFacts,
)
from infra.live_log import now_us
from infra.live_records import (
    BLOCKS,
    CONNECTION,
    RESTRICTING,
    RULE_OF_RELATION,
    Expiry,
    Record,
    changes_of,
    facts_of,
    hiding_rule,
)
from infra.live_scripts import BAR, FORGET_EXPIRED, PREFIX, RECORD
from infra.live_stream import HEAD, EventStream, Link
from infra.redis_connection import evicting_policy, explained, is_cluster, memory_of, shown
from infra.settings import Settings

log = logging.getLogger(__name__)

PEOPLE, CHANGED = f"{PREFIX}people", f"{PREFIX}changed"
ERASED_KEY, VIEWER = f"{PREFIX}erased", f"{PREFIX}viewer:"
HEAD_FIELDS = ("born", "changed", "erased")
REFUSALS = {"reused": REUSED_ID, "erased": ERASED_PERSON}
RELATIONS = len(RULE_OF_RELATION) + 1
WRITING = 10
"""Times of a reading that storing a request's events may take: they are many, and may wait for the disk."""
PATIENCE_S = 10.0
"""Time that Redis may take for what no request waits for: exports and erasures."""
SCANNED_AT_ONCE = 1000


class RedisLiveFacts:
    """See infra.live_facts.LiveStore. It connects at first use, and again where a connection was lost."""

    def __init__(self, uri: str, settings: Settings) -> None:
        self.where = shown(uri)
        events = settings.events
        if is_cluster(uri) and events.redis_replicas:
            fix = "Set it to 0, and min-replicas-to-write in the cluster's nodes instead."
            raise UsageError("events.redis_replicas: a cluster cannot be asked for it", fix)
        self._uri = uri
        self._nodes = {"target_nodes": "primaries"} if is_cluster(uri) else {}
        self._link = Link(uri, events.redis_timeout_ms / 1000)
        self._writing_link = Link(uri, WRITING * events.redis_timeout_ms / 1000)
        self._patient_link = Link(uri, max(PATIENCE_S, events.redis_timeout_ms / 1000))
        self._stream = EventStream(self._patient_link)
        self._expiry = Expiry.of(settings)
        self._replicas, self._wait_ms = events.redis_replicas, WRITING * events.redis_timeout_ms // 2
        self._hidden: dict[int, str] = {}
        self._born: bytes | None = None
        self._seen = [0, 0]
        self._lock = threading.Lock()
        self._closed = False
        self._warned = False

    @property
    def _client(self) -> Any:
        return self._link.client

    @property
    def _patient(self) -> Any:
        return self._patient_link.client

    @classmethod
    def open(cls, uri: str, settings: Settings) -> "RedisLiveFacts":
        """Raises UsageError for an address that names no Redis."""
        return cls(uri, settings)

    def of(self, viewer: int) -> ViewerFacts:
        with self._explained():
            pipe = self._client.pipeline(transaction=False)
            pipe.hmget(HEAD, HEAD_FIELDS)
            pipe.hgetall(f"{VIEWER}{viewer}")
            (born, *head), found = pipe.execute()
            self._refuse_loss(born)
            seen = [int(number or 0) for number in head]
            if seen != self._seen:
                self._follow(*seen)
            return self._facts(viewer, found, max(seen))

    def _facts(self, viewer: int, found: dict[bytes, bytes], hidden_version: int) -> ViewerFacts:
        """hidden_version: number of the last change of who is hidden."""
        people, version = self._hidden, int(found.pop(b"v", 0))
        if not found:
            return ViewerFacts({}, people, {}, viewer in people, version, hidden_version)
        oldest = self._expiry.oldest(now_us())
        return facts_of(_records(viewer, found), people, viewer, version, oldest, hidden_version)

    def _refuse_loss(self, born: bytes | None) -> None:
        """A Redis that held events and now holds none, or others, has lost them, and with them whom they bar."""
        if self._born is None:
            self._born = born
        elif born != self._born:
            fix = "Restore them from a copy; servers that are restarted do without them."
            raise StoreError(f"{self.where}: its live facts are gone", fix)

    def _follow(self, changed: int, erased: int) -> None:
        """Takes over who was hidden, or no longer is, since the last look."""
        with self._lock:
            if max(changed, erased) <= max(self._seen):
                return  # another thread has seen a later state
            if erased != self._seen[1]:
                self._hidden |= dict.fromkeys(map(int, self._client.hkeys(ERASED_KEY)), ERASED)
            # Up to the newest: who was changed again since `changed` was read is only there.
            people = self._client.zrangebyscore(CHANGED, self._seen[0] + 1, "+inf")
            states = self._client.hmget(PEOPLE, people) if people else ()
            for person, state in zip(map(int, people), states, strict=True):
                if self._hidden.get(person) == ERASED or state is None:  # erased since: the next look finds it so
                    continue
                if rule := hiding_rule(orjson.loads(state)[1::2]):
                    self._hidden[person] = rule
                else:
                    self._hidden.pop(person, None)
            self._seen = [changed, erased]

    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        """See LiveFacts. Where Redis answered too late, events may have been stored all the same: send them again."""
        self._refuse_eviction()
        self._warn_of_loss()
        packed = orjson.dumps([_packed(event) for event in events])
        asked = (RECORD, 1, PREFIX, packed, self._expiry.fatigue_us, token_hex(8))
        with self._explained():
            refused = self._writing_link.client.eval(*asked) if not self._replicas else self._copied(asked)
        return {int(place): REFUSALS[why] for place, why in orjson.loads(refused) or ()}

    def _copied(self, asked: tuple[Any, ...]) -> Any:
        """What a script returns, once enough replicas have what it changed: one connection asks for both.

        It writes more than the script may have: Redis waits for this connection's last write, and events that were
        sent again, as some replica was late, are not stored again.
        """
        pipe = self._writing_link.client.pipeline(transaction=False)
        pipe.eval(*asked)
        pipe.hset(HEAD, "asked", token_hex(8))
        pipe.wait(self._replicas, self._wait_ms)
        answer, _, copies = pipe.execute()
        if copies < self._replicas:
            fix = "Send the events again; look at the replicas, or lower events.redis_replicas."
            raise StoreError(f"{self.where}: {copies} of {self._replicas} replicas have the events", fix)
        return answer

    def unexported(self, most: int) -> LogBatch | None:
        with self._explained():
            return self._stream.unexported(most)

    def exported(self, batch: LogBatch, keep_days: int) -> None:
        with self._explained():
            self._stream.exported(batch, keep_days, now_us())

    def ended_at(self, pairs: Sequence[tuple[str, int, int]]) -> list[int | None]:
        with self._explained():
            pipe = self._patient.pipeline(transaction=False)
            for fact, user, other in pairs:
                pipe.hget(f"{VIEWER}{user}", f"{BLOCKS if fact == BLOCKED else CONNECTION}:{other}")
            found = [record and record.partition(b":") for record in pipe.execute()]
        return [int(record[0]) if record and record[2] == b"0" else None for record in found]

    def erase(self, user_id: int, at_us: int) -> Erased:
        with self._explained():
            state = self._patient.eval(BAR, 1, PREFIX, user_id, at_us, token_hex(8))
            key = f"{VIEWER}{user_id}"
            own = self._patient.hlen(key) - self._patient.hexists(key, "v")
            self._patient.delete(key)
            viewers = self._forget(user_id)
            gone = self._stream.remove_person(user_id)
        rows = {"state": state, "own facts": own}
        return Erased(rows | {"facts of others": sum(viewers.values()), "events in the log": gone}, sorted(viewers))

    def _forget(self, person: int) -> dict[int, int]:
        """Removes a person from everybody's facts: viewer -> records removed. A look at all viewers."""
        found: dict[int, int] = {}
        for keys in self._viewer_keys():
            pipe = self._patient.pipeline(transaction=False)
            for key in keys:
                pipe.hdel(key, *_fields_of(person))
            gone = zip(keys, pipe.execute(), strict=True)
            found |= {int(key[len(VIEWER) :]): count for key, count in gone if count}
        return found

    def knows(self, user_id: int) -> bool:
        with self._explained():
            pipe, key = self._patient.pipeline(transaction=False), f"{VIEWER}{user_id}"
            pipe.hexists(ERASED_KEY, str(user_id))
            pipe.hexists(PEOPLE, str(user_id))
            pipe.hlen(key)
            pipe.hexists(key, "v")
            erased, state, fields, version = pipe.execute()
            own = erased or state or fields > version
            return bool(own or self._is_in_facts_of_others(user_id) or self._stream.names_person(user_id))

    def _is_in_facts_of_others(self, person: int) -> bool:
        for keys in self._viewer_keys():
            pipe = self._patient.pipeline(transaction=False)
            for key in keys:
                pipe.hmget(key, _fields_of(person))
            if any(record is not None for found in pipe.execute() for record in found):
                return True
        return False

    def _viewer_keys(self) -> Iterator[list[bytes]]:
        keys = self._patient.scan_iter(match=f"{VIEWER}*", count=SCANNED_AT_ONCE, **self._nodes)
        while chunk := list(islice(keys, SCANNED_AT_ONCE)):
            yield chunk

    def erased(self) -> Mapping[int, int]:
        with self._explained():
            return {int(person): int(at) for person, at in self._patient.hgetall(ERASED_KEY).items()}

    def forget_expired(self, told_us: int) -> int:
        dismissed_after, shown_after = self._expiry.oldest(min(now_us(), told_us))
        with self._explained():
            return sum(
                int(self._patient.eval(FORGET_EXPIRED, len(keys), *keys, dismissed_after, shown_after))
                for keys in self._viewer_keys()
            )

    def close(self) -> None:
        self._closed = True
        self._link.close()
        self._writing_link.close()
        self._patient_link.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self.where}: live facts were closed")
        try:
            with explained(self.where):
                yield
        except (ValueError, TypeError) as error:
            fix = "Give live facts a Redis, or a database of it, of their own."
            raise StoreError(f"{self.where}: holds something else than live facts: {error}", fix) from error

    def evicting_policy(self) -> str:
        """The policy by which this Redis would forget facts once its memory is short, and with them whom they bar;
        empty where it would not, or does not tell. Raises StoreError where it cannot be asked."""
        with self._explained():
            try:
                return evicting_policy(memory_of(self._client, self._uri))
            except redis.ResponseError:  # it need not tell
                return ""

    def _refuse_eviction(self) -> None:
        """Looks until it was well once."""
        if not self._warned and (policy := self.evicting_policy()):
            raise StoreError(f"{self.where}: evicts live facts when it is full ({policy})", NO_EVICTION)

    def _warn_of_loss(self) -> None:
        """Says once what of this Redis would lose events; nothing where it does not tell."""
        if self._warned:
            return
        self._warned = True
        try:
            found = self._client.config_get("appendonly", "appendfsync")
        except redis.RedisError:  # it need not tell
            return
        durable = found.get("appendonly") == "yes" and found.get("appendfsync") == "always"
        if not durable and not self._replicas:
            log.warning(
                "%s may lose events when it is killed: set appendonly yes and appendfsync always, "
                "or events.redis_replicas", self.where
            )  # fmt: skip


def _fields_of(person: int) -> list[str]:
    """Of a viewer's facts those that may be about a person."""
    return [f"{relation}:{person}" for relation in range(RELATIONS)]


def _packed(event: Event) -> dict[str, Any]:
    """As the script takes it: ids and times as text."""
    state = RESTRICTING.get(event.type) if event.other_id is None else None
    return {
        "key": event.key().hex(),
        "content": event.content().hex(),
        "type": event.type,
        "user": str(event.user_id),
        "other": "" if event.other_id is None else str(event.other_id),
        "at": str(event.at_us),
        "position": str(event.position or ""),
        "changes": [[str(c.viewer), str(c.other), c.relation, c.value] for c in changes_of(event)],
        **({"state": state} if state else {}),
        **({"model": event.model} if event.model else {}),
    }


def _records(viewer: int, found: Mapping[bytes, bytes]) -> Iterator[Record]:
    for field, record in sorted(found.items()):
        relation, _, other = field.partition(b":")
        at, _, value = record.partition(b":")
        yield viewer, int(other), int(relation), int(at), int(value)
