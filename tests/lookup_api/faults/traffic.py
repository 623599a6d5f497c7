"""Callers of a site who judge every answer: its status, its label, and whether it names somebody it must not."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from infra.times import format_time

TIMEOUT_S = 60.0
NOW = format_time(datetime.now(UTC).replace(microsecond=0))
Barred = Mapping[int, frozenset[int]]

_numbers = itertools.count()


class Caller:
    """One connection that is made anew where it broke."""

    def __init__(self, port: int, key: str) -> None:
        self._headers = {"Authorization": f"Bearer {key}"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask("GET", path)

    def post(self, events: Sequence[Mapping[str, Any]]) -> tuple[int, Any]:
        return self._ask("POST", "/v1/events", json.dumps({"events": events}))

    def list_of(self, user_id: int, explain: bool = False) -> tuple[int, Any]:
        return self.get(f"/v1/users/{user_id}/recommendations?limit=20" + ("&explain=1" if explain else ""))

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise OSError("the connection broke") from None


def event(kind: str, user_id: int, other_id: int | None = None, at: str = NOW) -> dict[str, str]:
    other = {} if other_id is None else {"other_id": str(other_id)}
    return {"event_id": f"fault-{next(_numbers)}", "type": kind, "user_id": str(user_id), "at": at} | other


class Known:
    """Whom nobody may show to whom, as far as callers were told that it is so. Thread-safe."""

    def __init__(self, barred: Barred) -> None:
        self._barred = {viewer: set(people) | {viewer} for viewer, people in barred.items()}
        self._hidden: set[int] = set()
        self._lock = threading.Lock()

    def learn(self, events: Iterable[Mapping[str, str]]) -> None:
        """From events that were accepted."""
        with self._lock:
            for one in events:
                user, other = int(one["user_id"]), int(one.get("other_id", 0))
                if one["type"] == "deactivated":
                    self._hidden.add(user)
                    continue
                self._barred.setdefault(user, {user}).add(other)
                if one["type"] in ("connected", "blocked"):
                    self._barred.setdefault(other, {other}).add(user)

    def of(self, viewer: int) -> frozenset[int]:
        with self._lock:
            return frozenset(self._barred.get(viewer, {viewer}) | self._hidden)


@dataclass(frozen=True)
class Seen:
    """One answer. status 0: the connection broke. wrong: people it names and must not."""

    kind: str
    at_s: float
    ms: float
    status: int
    source: str = ""
    degraded: bool = False
    cache: str = ""
    release: str = ""
    people: tuple[int, ...] = ()
    wrong: frozenset[int] = frozenset()


def look(caller: Caller, known: Known, kind: str, user_id: int, explain: bool = False) -> Seen:
    """Asks for a list and judges it by what was known before it was asked for."""
    before, start = known.of(user_id), time.perf_counter()
    try:
        status, told = caller.list_of(user_id, explain)
    except OSError:
        return Seen(kind, start, 0.0, 0)
    ms = (time.perf_counter() - start) * 1e3
    if status != 200:
        return Seen(kind, start, ms, status, str(told.get("type")))
    people = tuple(int(item["user_id"]) for item in told["items"])
    return Seen(kind, start, ms, status, told["source"], told["degraded"], told["cache"], told["release"], people,
                before & set(people))  # fmt: skip


@dataclass
class Traffic:
    """GETs at a steady pace from several callers, and one who posts events about people who were just shown.

    caller: makes one. users: kind -> whom to ask for. seen, posted (at_s, status): what became of them.
    """

    caller: Callable[[], Caller]
    known: Known
    users: Mapping[str, Sequence[int]]
    per_s: float = 100.0
    callers: int = 4
    events_per_s: float = 5.0
    seen: list[Seen] = field(default_factory=list)
    posted: list[tuple[float, float, int]] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._stop = threading.Event()
        jobs = [(self._ask, number) for number in range(self.callers)] + [(self._tell, 0)] * bool(self.events_per_s)
        self._threads = [threading.Thread(target=job, args=(number,), daemon=True) for job, number in jobs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        draw, pause_s = random.Random(number), self.callers / self.per_s
        kinds = list(self.users)
        next_s = time.monotonic() + pause_s * number / self.callers
        with self.caller() as caller:
            while not self._stop.wait(max(0.0, next_s - time.monotonic())):
                next_s = max(next_s + pause_s, time.monotonic() - pause_s)
                kind = draw.choice(kinds)
                user = draw.choice(self.users[kind])
                self.seen.append(look(caller, self.known, kind, user, draw.random() < 0.25))

    def _tell(self, _: int) -> None:
        draw = random.Random(99)
        with self.caller() as caller:
            while not self._stop.wait(1 / self.events_per_s):
                shown = next((one.people for one in reversed(self.seen[-50:]) if one.people), ())
                viewer, other = draw.choice(self.users["precomputed"]), draw.choice(shown or self.users["live"])
                tell(caller, self.known, [event("blocked", viewer, other)], self.posted)


def tell(
    caller: Caller, known: Known, events: Sequence[Mapping[str, str]], posted: list[tuple[float, float, int]]
) -> int:
    """Posts events, remembers what was accepted, and returns the status; 0 where the connection broke."""
    events = [one for one in events if one.get("other_id") != one["user_id"]]
    start = time.perf_counter()
    try:
        status, told = caller.post(events)
    except OSError:
        status, told = 0, {}
    posted.append((start, (time.perf_counter() - start) * 1e3, status))
    if status == 202:
        refused = {one["index"] for one in told["rejected"]}
        known.learn(one for place, one in enumerate(events) if place not in refused)
    return status
