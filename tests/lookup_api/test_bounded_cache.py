from hypothesis import given
from hypothesis import strategies as st

from lookup_api.bounded_cache import ENTRY_BYTES, BoundedCache
from tests.lookup_api.test_breaker import Clock

ROOM = 10 * (ENTRY_BYTES + 100)


def test_an_entry_is_found_for_as_long_as_it_lives() -> None:
    clock = Clock()
    cache = BoundedCache[str](ROOM, 300, clock)
    cache.put("a", "one", 3)
    clock.now += 299
    assert cache.get("a") == "one"
    clock.now += 1
    assert cache.get("a") is None


def test_what_was_not_used_is_dropped_first() -> None:
    cache = BoundedCache[int](ROOM, 300)
    for key in range(10):
        cache.put(key, key, 100)
    assert [cache.get(key) for key in (0, 2, 4)] == [0, 2, 4]
    for key in range(10, 14):
        cache.put(key, key, 100)
    assert [cache.get(key) for key in (0, 2, 4)] == [0, 2, 4]
    assert [cache.get(key) for key in (1, 3, 5, 6)] == [None] * 4


def test_in_a_full_cache_what_is_cheap_is_kept_from_the_second_time_on() -> None:
    cache = BoundedCache[int](ROOM, 300)
    for key in range(10):
        cache.put(key, key, 100, cheap=True)
    assert [cache.get(key) for key in range(10)] == list(range(10)), "there was room"
    for key in range(10, 30):
        cache.put(key, key, 100, cheap=True)
    assert len(cache) == 10
    assert [cache.get(key) for key in range(10, 30)] == [None] * 20
    cache.put(29, 29, 100, cheap=True)
    assert cache.get(29) == 29
    for key in range(1000, 5000):
        cache.put(key, key, 100, cheap=True)
    cache.put(1000, 1000, 100, cheap=True)
    assert cache.get(1000) is None, "that was long ago"
    cache.put(29, 30, 100, cheap=True)
    assert cache.get(29) == 30, "what is kept is kept anew"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2000), st.booleans()), max_size=200))
def test_it_never_holds_more_than_it_may_and_always_what_came_last(steps: list[tuple[int, int, bool]]) -> None:
    cache = BoundedCache[int](ROOM, 300)
    for key, size, used in steps:
        cache.put(key, size, size)
        assert cache.size_bytes <= ROOM
        assert cache.get(key) == size
        if not used:
            cache.drop(key)
            assert cache.get(key) is None
    assert cache.size_bytes == sum(entry.size for entry in cache._entries.values())


def test_what_is_larger_than_the_cache_is_not_kept_and_a_cache_of_nothing_is_off() -> None:
    cache = BoundedCache[int](ROOM, 300)
    cache.put(1, 1, 10)
    cache.put(2, 2, ROOM)
    assert (cache.get(1), cache.get(2)) == (1, None)
    off = BoundedCache[int](0, 300)
    off.put(1, 1, 0)
    assert not off
    assert off.get(1) is None
