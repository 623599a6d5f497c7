"""Rate limits: a rate on average and a second's worth at once, for one process and, through Redis, for a fleet."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.settings import ApiSettings
from lookup_api import rate_limits
from lookup_api.rate_limits import KEY, RateLimit
from lookup_api.shared_rates import SharedRates, redis_key
from tests.suites.redis_server import RedisServer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=120))
def test_no_second_and_no_stretch_lets_more_through_than_the_rate(per_s: int, pauses: list[float]) -> None:
    """The bound of a token bucket (Turner 1986): in any t seconds at most rate x (t + 1)."""
    clock = Clock()
    limit = RateLimit(KEY, per_s, clock)
    passed = []
    for pause in pauses:
        clock.now += pause / 10
        for _ in range(3):
            if not limit.refuse("a"):
                passed.append(clock.now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= per_s * (passed[last] - passed[first] + 1) + 0.51


def test_a_second_s_worth_may_come_at_once_and_the_wait_told_is_enough() -> None:
    clock = Clock()
    limit = RateLimit(KEY, 5, clock)
    assert [bool(limit.refuse("a")) for _ in range(7)] == [False] * 5 + [True] * 2
    wait = limit.refuse("a")
    assert 0 < wait < 0.21
    clock.now += wait
    assert not limit.refuse("a")
    assert not limit.refuse("b"), "each name has its own"


def test_a_rate_below_one_a_second_lets_one_through_after_the_wait_it_tells() -> None:
    clock = Clock()
    limit = RateLimit(KEY, 0.1, clock)
    for _ in range(5):
        assert not limit.refuse("a"), "a name may ask one at once"
        wait = limit.refuse("a")
        assert 9 < wait <= 10
        clock.now += wait


def test_names_are_forgotten_before_they_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_NAMES", 10)
    clock = Clock()
    limit = RateLimit(KEY, 1, clock)
    for name in range(1000):
        limit.refuse(str(name))
        assert len(limit._young) + len(limit._old) <= 21
    assert limit.refuse("999"), "the newest are known"


def shared(uri: str, per_s: float) -> tuple[RateLimit, SharedRates]:
    """For whom no time passes while the machine is busy."""
    limit = RateLimit(KEY, per_s, Clock())
    limit.telling = True
    return limit, SharedRates(uri, [limit], 60.0)


@pytest.mark.parametrize("redis", ["redis_uri", "redis_cluster_uri"])
def test_processes_count_together(redis: str, request: pytest.FixtureRequest) -> None:
    """Two of them: what one spends, the other knows after each has told."""
    uri = request.getfixturevalue(redis)
    (one, of_one), (other, of_other) = shared(uri, 0.01), shared(uri, 0.01)
    for limit in (one, other):  # twice what is allowed
        assert not limit.refuse("a"), "it has not heard yet"
    of_one.step()
    of_other.step()
    clock = other._clock
    assert isinstance(clock, Clock)
    clock.now += 60  # enough for what it let through itself
    assert other.refuse("a")
    assert not other.refuse("b")
    clock.now += 100  # and for what both did
    assert not other.refuse("a")
    of_one.stop()
    of_other.stop()


def test_redis_keeps_no_name_and_forgets_what_is_paid(redis_uri: str, shared_redis: RedisServer) -> None:
    limit, rates = shared(redis_uri, 0.1)
    limit.refuse("pymk_secret")
    rates.step()
    with shared_redis.client() as client:
        names = client.keys("*")
        assert names == [redis_key(KEY, "pymk_secret").encode()]
        assert b"secret" not in names[0]
        assert 0 < client.pttl(names[0]) <= 10_001
    rates.stop()


def test_without_redis_each_process_goes_on_by_itself(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    limit, rates = shared(server.uri, 2)
    server.stop()
    limit.refuse("a")
    with pytest.raises(StoreError):
        rates.step()
    assert not limit.refuse("a")
    assert limit.refuse("a")
    rates.stop()


@pytest.mark.parametrize("redis", ["redis_uri", "redis_cluster_uri"])
def test_servers_whose_live_facts_are_in_redis_count_together(
    serve: Callable[..., FlaskClient], redis: str, request: pytest.FixtureRequest
) -> None:
    client = serve(api=ApiSettings(poll_s=3600, facts=request.getfixturevalue(redis), user_per_s=5))
    rates = client.application.extensions["pymk"].shared_rates
    assert rates is not None
    rates.step()
