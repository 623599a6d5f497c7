"""Leases: one maker at a time of each thing in a store, told through the store itself.

`{store}/leases/{name}` says who makes `name` now and who did before. Each holder has a token, higher than all before,
and renews its lease from a thread. A lease that was not renewed for its `ttl_s` passes to the next who asks; the
holder it was taken from, should it live on, is refused when it checks its token, which it does before it writes.

What is assumed of clocks: that each machine's own runs at about the right rate. A holder renews after a sixth of
`ttl_s` of its clock, and one that waits takes over when it saw no change for `ttl_s` of its own; what two clocks show
is never compared. A holder on the same machine whose process has ended is succeeded at once. What is assumed of the
store: conditional puts.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

import orjson

from infra.errors import Conflict, CorruptArtifact, Fenced, NotFound, StoreError
from infra.process_life import is_gone
from infra.store import ObjectStore
from infra.times import format_time

log = logging.getLogger(__name__)

FOLDER = "leases"
VERSION = 1
TTL_S = 60.0
"""Time without a sign of life after which a holder is taken for dead."""
BEATS = 6
"""Signs of life in that time."""
REMEMBERED = 20
"""Turns that a lease tells of."""
LONGEST_POLL_S = 1.0
TOUCHED_S = 3600.0

AT_WORK, WRITING, MADE, FOUND, FAILED, LOST = "at work", "writing", "made", "found", "failed", "lost"
"""States of a turn. The first two hold the lease. FOUND: had nothing left to make. LOST: did not end by itself."""
HOLDING = (AT_WORK, WRITING)


@dataclass(frozen=True)
class Maker:
    """Who makes something. run_id: of the command. dag_run: of the scheduler's run. process: see infra.process_life."""

    run_id: str
    host: str
    process: str
    code_version: str
    dag_run: str | None = None

    def __str__(self) -> str:
        return f"run {self.dag_run or self.run_id} on {self.host}"


@dataclass(frozen=True)
class Turn:
    """One holding of a lease. since: RFC 3339 UTC by the holder's clock, for people.

    notes: what it tells of its work.
    """

    token: int
    maker: Maker
    nonce: str
    since: str
    state: str
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LeaseFile:
    """turns: the newest last. beat: rises with every sign of life. uses: what the holder reads, as `kind/artifact`."""

    turns: tuple[Turn, ...] = ()
    beat: int = 0
    ttl_s: float = TTL_S
    uses: tuple[str, ...] = ()

    @property
    def holder(self) -> Turn | None:
        """Who has it, dead or alive."""
        return self.turns[-1] if self.turns and self.turns[-1].state in HOLDING else None

    @property
    def maker(self) -> Turn | None:
        """Whose work stands where the thing is finished: the last who said so, else the last who began to write."""
        made = [turn for turn in self.turns if turn.state == MADE]
        begun = made or [turn for turn in self.turns if turn.notes]
        return begun[-1] if begun else None

    def passed_to(self, maker: Maker, nonce: str, ttl_s: float, uses: tuple[str, ...]) -> "LeaseFile":
        before = tuple(replace(turn, state=LOST) if turn.state in HOLDING else turn for turn in self.turns)
        token = before[-1].token + 1 if before else 1
        turn = Turn(token, maker, nonce, format_time(datetime.now(UTC)), AT_WORK)
        return LeaseFile((*before, turn)[-REMEMBERED:], self.beat + 1, ttl_s, uses)

    def now(self, state: str, notes: Mapping[str, Any]) -> "LeaseFile":
        """The newest turn in another state, with these notes beside its own."""
        last = self.turns[-1]
        turn = replace(last, state=state, notes={**last.notes, **notes})
        return replace(self, turns=(*self.turns[:-1], turn), beat=self.beat + 1)

    def to_json(self) -> bytes:
        values = asdict(self) | {"schema_version": VERSION}
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "LeaseFile":
        try:
            values = json.loads(data)
            if values["schema_version"] != VERSION:
                raise CorruptArtifact(f"{where}: lease version {values['schema_version']}, this code reads {VERSION}")
            turns = tuple(Turn(**turn | {"maker": Maker(**turn["maker"])}) for turn in values["turns"])
            return cls(turns, int(values["beat"]), float(values["ttl_s"]), tuple(map(str, values["uses"])))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            fix = "Once no run is at work, delete the file."
            raise CorruptArtifact(f"{where}: not a lease: {error}", fix) from error


class Lease:
    """A lease that is held. As a block: renewed until it ends, then given back. Safe to use from any thread.

    ending: the state in which the turn ends, unless the block raises. lost: set once it is known to have passed on.
    """

    def __init__(self, store: ObjectStore, name: str, file: LeaseFile, etag: str) -> None:
        self._store = store
        self._key = key_of(name)
        self._file = file
        self._etag = etag
        self._mine = file.turns[-1]
        self.ending = MADE
        self.lost: Fenced | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)

    @property
    def token(self) -> int:
        return self._mine.token

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._update(lambda file: file.now(FAILED if kind else self.ending, {}))
        except StoreError as error:  # what it was held for is done or has failed: only the next one may have to wait
            log.warning("%s", error)

    def check(self) -> None:
        """Raises Fenced where the lease has passed to another; StoreError where nobody can tell."""
        found = read_lease(self._store, self._key)
        if not self._is_mine(found):
            raise self._fenced(found)

    def writing(self, **notes: Any) -> None:
        """Says that the work is done and is about to be written, with notes to keep. Raises Fenced."""
        self._update(lambda file: file.now(WRITING, notes))

    def _renew(self) -> None:
        while not self._stop.wait(self._file.ttl_s / BEATS):
            try:
                self._update(lambda file: replace(file, beat=file.beat + 1))
            except Fenced as error:
                self.lost = error
                return
            except StoreError as error:
                log.warning("%s/%s cannot be renewed now: %s", self._store.uri, self._key, error)

    def _update(self, change: Callable[[LeaseFile], LeaseFile]) -> None:
        """Raises Fenced where the lease has passed to another."""
        with self._lock:
            while True:
                file = change(self._file)
                try:
                    self._etag = self._store.put(self._key, file.to_json(), if_match=self._etag)
                except (Conflict, NotFound):
                    self._look_again()  # a put whose answer was lost is one's own
                else:
                    self._file = file
                    return

    def _look_again(self) -> None:
        try:
            stored = self._store.get(self._key)
            found: LeaseFile | None = LeaseFile.from_json(stored.data, f"{self._store.uri}/{self._key}")
        except NotFound:
            found = None
        if found is None or not self._is_mine(found):
            raise self._fenced(found)
        self._file, self._etag = found, stored.etag

    def _is_mine(self, found: LeaseFile | None) -> bool:
        return bool(found and found.turns and found.turns[-1].nonce == self._mine.nonce)

    def _fenced(self, found: LeaseFile | None) -> Fenced:
        last = found.turns[-1] if found and found.turns else None
        to = f"{last.maker} (token {last.token})" if last else "nobody: it was removed"
        return Fenced(
            f"{self._store.uri}/{self._key}: this run (token {self.token}) gave no sign of life for "
            f"{self._file.ttl_s:g} s, and its lease passed to {to}; what this run made is not written",
            "Run again: what the other finished is found.",
        )


def take(
    store: ObjectStore,
    name: str,
    maker: Maker,
    *,
    ttl_s: float = TTL_S,
    uses: tuple[str, ...] = (),
    done: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease | None:
    """Waits until the lease is free and takes it; None where what it is for turns out to be done meanwhile.

    done: whether there is nothing left to hold it for. tell: gets a line when there is somebody to wait for.
    """
    key, nonce, waited_for = key_of(name), uuid.uuid4().hex, ""
    seen, since = "", clock()
    while True:
        if done():
            return None
        try:
            stored = store.get(key)
        except NotFound:
            stored = None
        file = LeaseFile.from_json(stored.data, f"{store.uri}/{key}") if stored else LeaseFile()
        if stored and stored.etag != seen:
            seen, since = stored.etag, clock()
        holder = file.holder
        if stored and holder and holder.nonce == nonce:  # written, though the answer to that was lost
            return Lease(store, name, file, stored.etag)
        if holder is None or is_gone(holder.maker.process) or clock() - since >= file.ttl_s:
            with suppress(Conflict, NotFound):
                passed = file.passed_to(maker, nonce, ttl_s, uses)
                condition: Any = {"if_match": stored.etag} if stored else {"if_absent": True}
                return Lease(store, name, passed, store.put(key, passed.to_json(), **condition))
            continue
        if waited_for != holder.nonce:
            waited_for = holder.nonce
            tell(f"waiting for {holder.maker}, which has {name} since {holder.since}")
        sleep(min(LONGEST_POLL_S, file.ttl_s / BEATS))


def touch(store: ObjectStore, name: str) -> None:
    """Makes the lease of something finished younger than an hour, so that cleaning leaves alone what a run has found.

    The hour is of two clocks: where they differ, the lease is written more often, or as much later.
    """
    key = key_of(name)
    if any(info.key == key and time.time() - info.modified_s < TOUCHED_S for info in store.list(key)):
        return
    with suppress(Conflict, NotFound, CorruptArtifact):  # who changed it meanwhile has made it young
        try:
            stored = store.get(key)
        except NotFound:
            store.put(key, LeaseFile().to_json(), if_absent=True)
            return
        file = LeaseFile.from_json(stored.data, key)
        if file.holder is None:
            store.put(key, replace(file, beat=file.beat + 1).to_json(), if_match=stored.etag)


def read_lease(store: ObjectStore, key: str) -> LeaseFile | None:
    """None where there is none. Raises CorruptArtifact."""
    try:
        return LeaseFile.from_json(store.get(key).data, f"{store.uri}/{key}")
    except NotFound:
        return None


def lease_of(store: ObjectStore, name: str) -> LeaseFile | None:
    """Who makes `name`, and did; None where nobody ever held its lease. Raises CorruptArtifact."""
    return read_lease(store, key_of(name))


def key_of(name: str) -> str:
    return f"{FOLDER}/{name}"
