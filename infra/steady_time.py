"""The time of day for a process whose wall clock may jump while it runs.

A second clock starts at the wall clock's time and then only counts on. Whoever must not be early takes the earlier of
the two, whoever must not be late the later: a clock that jumps lifts no dismissal and refuses no event.
"""

import time

_WALL_NS, _STEADY_NS = time.time_ns(), time.monotonic_ns()


def earliest_us() -> int:
    """Microseconds since 1970: by now it is at least that late, for what ends in time."""
    return min(time.time_ns(), _counted_ns()) // 1000


def latest_us() -> int:
    """Microseconds since 1970: it is at most that late, for judging what claims to be of now."""
    return max(time.time_ns(), _counted_ns()) // 1000


def _counted_ns() -> int:
    return _WALL_NS + time.monotonic_ns() - _STEADY_NS
