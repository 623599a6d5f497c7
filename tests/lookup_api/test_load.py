"""How busy a worker is, on a clock that a test moves: two threads, windows of a quarter of a second."""

from lookup_api.load import FEWER, FULL, NO_LIVE, WINDOW_S, Load
from tests.lookup_api.test_breaker import Clock


def worked(load: Load, clock: Clock, share: float, windows: int = 4) -> None:
    """Both threads at work for a share of each of some windows."""
    for _ in range(windows * 10):
        for _ in range(2):
            load.began()
        clock.now += share * WINDOW_S / 10
        for _ in range(2):
            load.ended()
        clock.now += (1 - share) * WINDOW_S / 10


def test_the_level_follows_the_share_of_time_at_work() -> None:
    clock = Clock()
    load = Load(2, 0.75, 0.9, clock)
    for share, level in ((0.3, FULL), (0.8, FEWER), (0.97, NO_LIVE), (0.3, FULL)):
        worked(load, clock, share)
        assert abs(load.share - share) < 0.05
        assert load.level == level


def test_a_level_is_left_with_some_slack_so_that_it_does_not_flutter() -> None:
    clock = Clock()
    load = Load(2, 0.75, 0.9, clock)
    worked(load, clock, 0.8)
    worked(load, clock, 0.72)
    assert load.level == FEWER
    worked(load, clock, 0.6)
    assert load.level == FULL


def test_a_long_request_counts_while_it_runs_and_an_idle_worker_is_at_its_ease() -> None:
    clock = Clock()
    load = Load(2, 0.4, 0.9, clock)
    load.began()
    clock.now += 3 * WINDOW_S
    load.began()
    assert load.level == FEWER
    load.ended()
    load.ended()
    clock.now += 3 * WINDOW_S
    assert load.level == FULL
