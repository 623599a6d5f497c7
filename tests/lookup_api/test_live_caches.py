"""Live lists kept by a worker and, on a real Redis, by all; and what is answered while that Redis is gone or hangs."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.shared_cache import SharedCache
from lookup_api.bounded_cache import BoundedCache
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, NoFacts, Query
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.live_rung import LiveCaches
from lookup_api.metrics import Metrics
from tests.suites.redis_server import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.kill()


def caches(server: RedisServer, failures: int = 3, timeout_s: float = 2.0) -> LiveCaches:
    shared = SharedCache(server.uri, timeout_s, 3600)
    breaker = Breaker("the shared cache", failures, 60.0)
    return LiveCaches(BoundedCache(1 << 20, 300), shared, breaker, LadderMetrics(Metrics().registry))


def ask(user: int = 5, release: str = "r1", version: int = 0) -> Ask:
    named: Any = SimpleNamespace(release_id=release)
    return Ask(Query(user, 20, frozenset(), False), named, NoFacts(version=version), Deadline.after(60))


def get(found: LiveCaches, asked: Ask) -> bytes | None:
    return found.l2_get(asked, Deadline.after(60))


def test_a_list_that_one_worker_made_is_found_by_another(server: RedisServer) -> None:
    one, other = caches(server), caches(server)
    one.put(ask(), b"list")
    assert one.l1_get(ask()) == get(other, ask()) == b"list"
    assert other.l1_get(ask()) is None
    assert 0 < server.client().pttl("pymk:live:r1:5:0:0") <= 3_600_000


@pytest.mark.parametrize("asked", [ask(user=6), ask(release="r2"), ask(version=1)])
def test_another_user_release_or_version_of_facts_finds_nothing(server: RedisServer, asked: Ask) -> None:
    found = caches(server)
    found.put(ask(), b"list")
    assert found.l1_get(asked) is None
    assert get(found, asked) is None


def test_clearing_leaves_no_list_and_nothing_else_behind(server: RedisServer) -> None:
    found = caches(server)
    for user in range(2500):
        found.put(ask(user), b"list")
    server.client().set("other", "kept")
    assert SharedCache(server.uri, 5.0, 3600).clear() == 2500
    assert server.client().keys("*") == [b"other"]


def test_a_redis_that_is_gone_is_passed_over_and_found_again(server: RedisServer) -> None:
    found = caches(server)
    found.put(ask(), b"list")
    server.kill()
    for _ in range(3):
        assert get(found, ask()) is None
    assert found.l2_breaker.open
    found.put(ask(7), b"other")
    assert found.l1_get(ask(7)) == b"other"
    server.start()
    found.l2_breaker._next_s = 0.0  # the wait is over
    found.put(ask(8), b"more")
    assert not found.l2_breaker.open
    assert get(found, ask(8)) == b"more"


def test_a_redis_that_hangs_costs_its_time_limit_a_few_times_and_then_nothing(server: RedisServer) -> None:
    found = caches(server, failures=2, timeout_s=0.05)
    server.hang()
    for _ in range(50):
        assert get(found, ask()) is None
    assert found.l2_breaker.open
    server.resume()


def test_hits_and_misses_are_counted(server: RedisServer) -> None:
    found = caches(server)
    found.put(ask(), b"list")
    found.l1_get(ask())
    found.l1_get(ask(9))
    get(found, ask())
    counted = {
        (sample.labels["cache"], sample.labels["result"]): sample.value
        for sample in next(iter(found.counts.caches.collect())).samples
        if sample.name.endswith("_total")
    }
    assert (counted["l1", "hit"], counted["l1", "miss"], counted["l2", "hit"]) == (1, 1, 1)
