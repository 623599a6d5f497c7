"""Workers are killed while events come in: what was accepted holds, then and after a restart and a new release."""

import json
import os
import random
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.lookup import wait_until_ready
from benchmarks.serving_rows import user_ids
from tests.jobs.test_serve import start
from tests.suites.ports import free_port
from tests.suites.served_store import USERS, new_store, publish_day

EVENTS, A_REQUEST, SENDERS, KILLS = 10_000, 100, 4, 2
LOOKED_AT = 4
"""One user in so many is asked for."""
TRIES = 2000
AT = "2026-01-01T00:00:00Z"

Pair = tuple[int, int]


class Clients:
    """Callers that send their events again, under the same ids, until a worker accepts them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.accepted: set[Pair] = set()
        self.refused = 0
        self.failures = 0
        self._lock = threading.Lock()

    def send_all(self, pairs: list[Pair]) -> None:
        parts = [pairs[at : at + A_REQUEST] for at in range(0, len(pairs), A_REQUEST)]
        threads = [threading.Thread(target=self._send, args=(parts[n::SENDERS],)) for n in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self, parts: list[list[Pair]]) -> None:
        for part in parts:
            events = [
                {"event_id": f"{a}-{b}", "type": "blocked", "user_id": str(a), "other_id": str(b), "at": AT}
                for a, b in part
            ]
            for _ in range(TRIES):
                if self._post(events, part):
                    break

    def _post(self, events: list[dict[str, str]], part: list[Pair]) -> bool:
        body = json.dumps({"events": events}).encode()
        request = urllib.request.Request(f"{self.url}/v1/events", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 202
                made = json.load(answer)
        except (urllib.error.URLError, OSError):  # the worker was killed, or its successor is not there yet
            self.failures += 1
            pause()
            return False
        with self._lock:
            self.accepted.update(part)
            self.refused += len(made["rejected"])
        return True


def pause() -> None:
    """Between two tries of a caller."""
    threading.Event().wait(0.05)


def get(url: str) -> Any:
    """The answer of the first worker that is neither gone nor too busy."""
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            pause()
    raise AssertionError(f"{url}: no answer")


def shown_although_blocked(url: str, blocked: set[Pair]) -> list[Pair]:
    found = []
    for user in user_ids(USERS)[::LOOKED_AT].tolist():
        items = get(f"{url}/v1/users/{user}/recommendations?limit=100")["items"]
        shown = [int(item["user_id"]) for item in items]
        found += [(user, other) for other in shown if (user, other) in blocked or (other, user) in blocked]
    return found


@contextmanager
def serving(store: str, port: int) -> Iterator[psutil.Process]:
    server = start(store, port, "--workers=2", "--set", "api.poll_s=0.2", "--set", "api.drain_s=0")
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", server)
        yield psutil.Process(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def kill_workers(server: psutil.Process, clients: Clients) -> None:
    """One worker after the other, each once a part of the events was accepted."""
    for part in range(1, KILLS + 1):
        while len(clients.accepted) < part * EVENTS // (KILLS + 1):
            threading.Event().wait(0.005)
        workers = [one for one in server.children() if "tracker" not in " ".join(one.cmdline())]
        os.kill(random.Random(part).choice(workers).pid, signal.SIGKILL)


@pytest.mark.slow
def test_every_accepted_event_holds_after_kills_a_restart_and_a_release_swap(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    publish_day(store, 1)
    people = user_ids(USERS).tolist()
    draw = random.Random(5)
    pairs = sorted({tuple(draw.sample(people, 2)) for _ in range(EVENTS * 2)})[:EVENTS]
    draw.shuffle(pairs)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(store.uri, port) as server:
        clients = Clients(url)
        killer = threading.Thread(target=kill_workers, args=(server, clients))
        killer.start()
        clients.send_all(pairs)
        killer.join()
        assert len(clients.accepted) == EVENTS
        assert clients.refused == 0
        assert clients.failures, "workers were killed, and that was seen"
        assert shown_although_blocked(url, clients.accepted) == []
    with serving(store.uri, port):
        assert shown_although_blocked(url, clients.accepted) == []
        release = publish_day(store, 2)
        while get(f"{url}/readyz")["release"] != release.release_id:
            pass
        assert shown_although_blocked(url, clients.accepted) == []
