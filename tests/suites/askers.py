"""Callers who ask a lookup API for lists without a break, and what each of their requests got."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """One request. sent_s, got_s: time.monotonic; status: 0 where there was no answer; body: the JSON answer."""

    user: int
    sent_s: float
    got_s: float
    status: int
    body: dict[str, Any]

    @property
    def release(self) -> str:
        return str(self.body.get("release"))

    @property
    def ids(self) -> list[int]:
        return [int(item["user_id"]) for item in self.body["items"]]


@dataclass
class Askers:
    """As a block: `callers` threads, each on a connection of its own, ask for the users in turn."""

    port: int
    users: Sequence[int]
    callers: int = 3
    limit: int = 100
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(place,)) for place in range(self.callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, place: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self._stop.is_set():
            self.asked.append(ask(connection, self.users[place % len(self.users)], self.limit))
            place += 1
        connection.close()


def ask(connection: http.client.HTTPConnection, user: int, limit: int) -> Asked:
    sent_s = time.monotonic()
    try:
        connection.request("GET", f"/v1/users/{user}/recommendations?limit={limit}")
        with connection.getresponse() as answer:
            status, body = answer.status, answer.read()
        return Asked(user, sent_s, time.monotonic(), status, json.loads(body))
    except (OSError, http.client.HTTPException, ValueError):
        connection.close()
        return Asked(user, sent_s, time.monotonic(), 0, {})
