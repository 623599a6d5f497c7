"""Bodies that do not come: the worker, which has one thread, goes on answering, and those that are there are taken."""

import json
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from benchmarks.servers import running
from benchmarks.serving_rows import FIRST_ID
from infra.request_threads import SPARE
from tests.suites.ports import free_port
from tests.suites.served_store import new_store, publish_day

EVENT = {"type": "blocked", "user_id": str(FIRST_ID), "other_id": "9", "at": "2026-01-01T00:00:00Z"}
HALF = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = new_store(tmp_path_factory.mktemp("slow"))
    publish_day(store, 1, users=20)
    port = free_port()
    command = [sys.executable, "-m", "jobs.cli", "serve", f"--store={store.uri}", f"--port={port}"]
    with running(command, {}, f"http://127.0.0.1:{port}", "/readyz") as started:
        yield started.url


def ask(url: str, body: bytes | None = None) -> int:
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return int(answer.status)


def half_sent(stack: ExitStack, url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    made = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
    made.sendall(HALF)
    return made


def post(url: str, number: int) -> int:
    event = json.dumps({"events": [EVENT | {"event_id": f"e{number}"}]}).encode()
    try:
        return ask(f"{url}/v1/events", event)
    except urllib.error.HTTPError as error:
        return error.code


def test_half_sent_bodies_stop_nobody(server: str) -> None:
    with ExitStack() as stack:
        for number in range(SPARE - 1):
            half_sent(stack, server)
            assert ask(f"{server}/v1/users/{FIRST_ID}/recommendations") == 200
            assert ask(f"{server}/healthz") == 200
            assert post(server, number) == 202


def test_where_nobody_is_left_to_wait_lists_go_on_and_events_come_later(server: str) -> None:
    with ExitStack() as stack:
        for _ in range(SPARE + 12):
            half_sent(stack, server)
        for _ in range(5):
            assert ask(f"{server}/v1/users/{FIRST_ID}/recommendations") == 200
            assert ask(f"{server}/healthz") == 200
        # A thread takes its half body after the socket has it: on a busy machine, after these answers too. One that
        # came while an event had the last place was refused, and another takes it.

        def is_full() -> bool:
            half_sent(stack, server)
            return post(server, 100) == 503

        assert until(is_full)
    assert until(lambda: post(server, 101) == 202)
    assert ask(f"{server}/v1/users/{FIRST_ID}/recommendations") == 200


def until(holds: Callable[[], bool], patience_s: float = 20.0) -> bool:
    end = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            return False
    return True


def test_the_reserve_is_parked_and_parked_again(server: str) -> None:
    """Connections of the worker to itself, one for each thread in reserve."""
    port = int(server.rpartition(":")[2])

    def parked() -> int:
        ends: dict[tuple[Any, Any], int | None] = {}
        for one in psutil.net_connections("tcp4"):
            if one.status == "ESTABLISHED":
                near, far = (tuple(end)[1] for end in (one.laddr, one.raddr))
                ends[near, far] = one.pid
        return sum(ends.get((port, near)) == pid for (near, far), pid in ends.items() if far == port)

    assert until(lambda: parked() == SPARE)
    with ExitStack() as stack:
        for _ in range(3):
            half_sent(stack, server)
        assert until(lambda: parked() == SPARE - 3)
    assert until(lambda: parked() == SPARE)
