"""Marks on the real server: its worker asks itself, and turns away who waited while a mark did."""

import http.client
import itertools
from collections import Counter

import pytest

from benchmarks.open_loop import OpenLoop, Request, Seen, get
from benchmarks.servers import Server, served

APP = "tests.suites.marked_app:create_app"
ASKS = 400


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_sends_marks_through_its_own_queue_only_while_it_is_asked(workers: int) -> None:
    with served(APP, {}, workers) as server:
        caller = http.client.HTTPConnection(server.url.removeprefix("http://"))
        before = marks(caller)
        for number in range(ASKS):
            assert status(caller, "/") == 200
            if number > 20 and marks(caller) > before:
                break
        else:
            raise AssertionError("no mark came through")
        caller.close()


def test_many_callers_at_once_are_answered_or_turned_away_and_few_are_answered() -> None:
    with served(APP, {}) as server:
        assert set(asked(server, 16, 400)) == {200}
        many = asked(server, 400, 4000)
        assert set(many) == {200, 503}
        assert many[200] > 20


def asked(server: Server, connections: int, times: int) -> Counter[int]:
    """A closed loop of so many requests."""
    loop, seen = OpenLoop(server.url, connections), Seen()
    loop.run_at(itertools.repeat(0.0, times), lambda: Request(get("/")), seen.add, at_once=True)
    loop.close()
    return seen.statuses


def marks(caller: http.client.HTTPConnection) -> int:
    caller.request("GET", "/marks")
    return int(caller.getresponse().read())


def status(caller: http.client.HTTPConnection, path: str) -> int:
    caller.request("GET", path)
    answer = caller.getresponse()
    answer.read()
    return answer.status
