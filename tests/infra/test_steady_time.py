import time

import pytest

from infra.steady_time import earliest_us, latest_us

YEAR_NS = 366 * 86_400 * 10**9
MINUTE_US = 60 * 10**6


@pytest.mark.parametrize("jump_ns", [YEAR_NS, -YEAR_NS])
def test_a_wall_clock_that_jumps_ends_nothing_early_and_makes_nothing_late(
    monkeypatch: pytest.MonkeyPatch, jump_ns: int
) -> None:
    wall_ns = time.time_ns
    before = wall_ns() // 1000
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + jump_ns)
    assert earliest_us() <= before + MINUTE_US
    assert latest_us() >= before
    assert (earliest_us() < before - MINUTE_US) == (jump_ns < 0)
    assert (latest_us() > before + MINUTE_US) == (jump_ns > 0)
