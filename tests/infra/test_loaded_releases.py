"""A release is loaded whole or not at all, is served from one moment to the next, and goes when it is old."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from infra.errors import Conflict, CorruptArtifact, NotFound, StoreError
from infra.kv import RANKINGS, USERS, RowsHash
from infra.loaded_releases import CURRENT, GRACE_S, Block, Loaded, LoadedReleases, State
from infra.release_files import Pointer, Release
from infra.table_hosts import TableHost, open_host
from infra.times import format_time

ROWS = {USERS: 5, RANKINGS: 3}


class Clock:
    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(params=["redis", "dynamodb"])
def host(request: pytest.FixtureRequest) -> Iterator[TableHost]:
    uri = request.getfixturevalue("redis_uri" if request.param == "redis" else "s3_bucket")
    opened = open_host(uri if request.param == "redis" else f"dynamodb://{uri}", 60)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loaded(host: TableHost, clock: Clock) -> LoadedReleases:
    return LoadedReleases(host, clock)


def release_of(day: int) -> Release:
    as_of = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return Release(f"{as_of:%Y%m%dT%H%M%SZ}-{day:012x}", format_time(as_of), 0, (), {})


def blocks_of(day: int) -> list[Block]:
    return [
        (table, np.arange(count), np.full(count, day, np.uint8), np.arange(1, count + 1))
        for table, count in ROWS.items()
    ]


def hash_of(day: int) -> str:
    digest = RowsHash()
    for block in blocks_of(day):
        digest.update(*block)
    return digest.hexdigest()


def load(loaded: LoadedReleases, day: int, blocks: Any = None) -> bool:
    return loaded.load(release_of(day), hash_of(day), ROWS, blocks or blocks_of(day))


def value_in(loaded: LoadedReleases, day: int) -> bytes | None:
    return loaded.open(release_of(day).release_id).get(USERS, 0)


def test_nothing_is_served_before_the_first_load(loaded: LoadedReleases) -> None:
    assert loaded.pointer() is None
    assert loaded.releases() == []
    assert loaded.clean(2) == []
    for use in (loaded.get, loaded.open, loaded.switch):
        with pytest.raises(NotFound, match="pymk release load"):
            use("20260101T000000Z-0")


def test_a_loaded_release_is_read_and_served_once_it_is_switched_to(loaded: LoadedReleases) -> None:
    assert load(loaded, 1)
    assert loaded.releases() == [release_of(1)]
    assert loaded.get(release_of(1).release_id) == release_of(1)
    assert value_in(loaded, 1) == b"\x01"
    assert loaded.open(release_of(1).release_id).count(RANKINGS) == 3
    assert loaded.pointer() is None
    assert loaded.switch(release_of(1).release_id)
    assert loaded.pointer().release_id == release_of(1).release_id  # type: ignore[union-attr]
    assert not loaded.switch(release_of(1).release_id)


def test_what_is_there_is_not_loaded_again(loaded: LoadedReleases) -> None:
    load(loaded, 1)

    def fail() -> Iterator[Block]:
        raise AssertionError("looked at the rows")
        yield

    assert not load(loaded, 1, fail())


def test_the_release_before_stays_for_rollback_and_older_ones_go(loaded: LoadedReleases) -> None:
    ids = [release_of(day).release_id for day in range(4)]
    for day in range(4):
        load(loaded, day)
        loaded.switch(ids[day])
        loaded.clean(2)
    assert [release.release_id for release in loaded.releases()] == ids[2:]
    assert loaded.switch(ids[2])
    pointer = loaded.pointer()
    assert pointer is not None
    assert (pointer.release_id, pointer.withdrawn) == (ids[2], (ids[3],))
    assert loaded.clean(2) == []
    assert (value_in(loaded, 2), value_in(loaded, 3)) == (b"\x02", b"\x03")
    with pytest.raises(NotFound):
        loaded.switch(ids[0])


def test_a_switch_that_is_not_wanted_any_more_changes_nothing(loaded: LoadedReleases) -> None:
    """Also where that turns out only as another switch comes first."""
    for day in range(3):
        load(loaded, day)
    ids = [release_of(day).release_id for day in range(3)]
    loaded.switch(ids[0])
    assert not loaded.switch(ids[1], lambda: False)
    asked = list[bool]()

    def wanted() -> bool:
        asked.append(not asked)
        if asked[-1]:
            loaded.switch(ids[2])
        return asked[-1]

    assert not loaded.switch(ids[1], wanted)
    assert asked == [True, False]
    assert loaded.pointer() == Pointer(ids[2], (ids[0],))


def test_a_reader_of_a_release_that_went_is_told(loaded: LoadedReleases) -> None:
    readers = []
    for day in range(3):
        load(loaded, day)
        readers.append(loaded.open(release_of(day).release_id))
        loaded.switch(release_of(day).release_id)
    assert loaded.clean(2) == [release_of(0).release_id]
    with pytest.raises(StoreError, match="are gone"):
        readers[0].get(USERS, 0)
    assert [reader.get(USERS, 0) for reader in readers[1:]] == [b"\x01", b"\x02"]


def test_a_load_that_fails_leaves_nothing_and_what_is_served_stays(loaded: LoadedReleases, host: TableHost) -> None:
    load(loaded, 1)
    loaded.switch(release_of(1).release_id)
    before = host.notes()

    def torn() -> Iterator[Block]:
        yield blocks_of(2)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(loaded, 2, torn())
    with pytest.raises(CorruptArtifact, match="content hash"):
        load(loaded, 2, blocks_of(3))
    assert host.notes() == before
    assert value_in(loaded, 1) == b"\x01"


def test_what_a_killed_load_left_goes_once_it_is_dead(loaded: LoadedReleases, host: TableHost, clock: Clock) -> None:
    """A killed process can clean nothing up: its load is left where the rows end."""

    class Killed(BaseException):
        pass

    def killed() -> Iterator[Block]:
        yield blocks_of(2)[0]
        raise Killed

    remove, loaded._remove = loaded._remove, lambda note: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        load(loaded, 2, killed())
    loaded._remove = remove  # type: ignore[method-assign]
    assert [Loaded.from_json(note, "").state for note in host.notes().values()] == [State.LOADING]
    assert loaded.clean(2) == []
    assert load(loaded, 2), "the one that is left does not stand in the way"
    clock.now_s += GRACE_S
    loaded.switch(release_of(2).release_id)
    assert loaded.clean(2) == [release_of(2).release_id]
    assert value_in(loaded, 2) == b"\x02"


def test_a_removal_that_died_is_finished_by_the_next(
    loaded: LoadedReleases, host: TableHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(3):
        load(loaded, day)
        loaded.switch(release_of(day).release_id)

    def fail(tables: object) -> None:
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(host, "drop", fail)
        with pytest.raises(StoreError):
            loaded.clean(2)
    assert [release.release_id for release in loaded.releases()] == [release_of(1).release_id, release_of(2).release_id]
    assert loaded.clean(2) == [release_of(0).release_id]
    assert len(host.notes()) == 3


def test_a_slow_load_says_that_it_lives_and_one_that_was_taken_for_dead_stops(
    loaded: LoadedReleases, host: TableHost, clock: Clock
) -> None:
    def slow(cleaning: bool) -> Iterator[Block]:
        for block in blocks_of(1):
            clock.now_s += GRACE_S - 1
            yield block
            assert loaded.clean(1) == []
        if cleaning:
            clock.now_s += GRACE_S
            assert loaded.clean(1) == [release_of(1).release_id]
            yield "meta", np.array([1]), np.zeros(1, np.uint8), np.array([1])

    with pytest.raises(Conflict, match=r"taken for dead and removed\. Load it again"):
        load(loaded, 1, slow(True))
    assert host.notes() == {}
    assert load(loaded, 1, slow(False))


def test_of_loads_of_one_release_at_once_all_end_well_and_one_copy_stays(loaded: LoadedReleases) -> None:
    both = threading.Barrier(2)

    def together() -> Iterator[Block]:
        both.wait(30)
        yield from blocks_of(1)

    threads = [threading.Thread(target=load, args=(loaded, 1, together())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded.switch(release_of(1).release_id)
    assert loaded.clean(2) in ([], [release_of(1).release_id])
    assert len([name for name in loaded.host.notes() if name != CURRENT]) == 1
    assert value_in(loaded, 1) == b"\x01"


def test_a_load_that_ends_after_another_of_the_same_release_leaves_that_one_served(loaded: LoadedReleases) -> None:
    def overtaken() -> Iterator[Block]:
        assert load(loaded, 1)
        loaded.switch(release_of(1).release_id)
        yield from blocks_of(1)

    assert not load(loaded, 1, overtaken())
    assert len([name for name in loaded.host.notes() if name != CURRENT]) == 1
    assert loaded.clean(2) == []
    assert value_in(loaded, 1) == b"\x01"


class Interrupted:
    """A host before whose `at`-th call something else happens, once."""

    def __init__(self, host: TableHost, at: int, meanwhile: Callable[[], object]) -> None:
        self._host, self._left, self._meanwhile = host, at, meanwhile

    @property
    def happened(self) -> bool:
        return self._left < 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._host, name)
        return self._counted(found) if callable(found) else found

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self._left -= 1
            if self._left == -1:
                self._meanwhile()
            return call(*args)

        return counted


BASE = release_of(3)
DELTA = replace(release_of(4), delta=1, base=BASE.release_id, base_as_of=BASE.as_of)


def serve_base(loaded: LoadedReleases) -> None:
    loaded.switch(release_of(3).release_id)


def serve_delta(loaded: LoadedReleases) -> None:
    loaded.load(DELTA, hash_of(3), ROWS, blocks_of(3))
    loaded.switch(DELTA.release_id)


@pytest.mark.parametrize("serve", [serve_base, serve_delta])
@pytest.mark.parametrize("cleaning_is_interrupted", [True, False])
def test_what_is_served_is_there_wherever_cleaning_and_serving_meet(
    redis_uri: str, clock: Clock, serve: Callable[[LoadedReleases], None], cleaning_is_interrupted: bool
) -> None:
    """A release was loaded long ago without being served; now it is, or a delta of it, and somebody cleans."""
    host = open_host(redis_uri, 60)
    ends = set()
    for at in range(100):
        for name, note in host.notes().items():
            host.swap(name, note, None)
        before, other = LoadedReleases(host, clock), LoadedReleases(host, clock)
        for day in (1, 3):
            load(before, day)
        before.switch(release_of(1).release_id)
        clock.now_s += GRACE_S

        def clean(by: LoadedReleases) -> None:
            by.clean(1)

        first, second = (clean, serve) if cleaning_is_interrupted else (serve, clean)
        held = Interrupted(host, at, lambda: attempt(second, other))  # noqa: B023
        attempt(first, LoadedReleases(held, clock))  # type: ignore[arg-type]
        pointer = before.pointer()
        assert pointer is not None
        day = 1 if pointer.release_id == release_of(1).release_id else 3
        assert before._whole(pointer.release_id).state is State.WHOLE, at
        for release_id in {pointer.release_id, before.get(pointer.release_id).base} - {None}:
            tables = before.host.reader(before._whole(release_id).tables)
            assert tables.get(USERS, 0) == bytes([day]), at
        ends.add(day)
        if not held.happened:
            break
    assert ends == {1, 3}, "who is later loses"
    host.close()


class Watched:
    """A host that tells of what is written into notes once it is."""

    def __init__(self, host: TableHost, told: Callable[[str, bytes | None], object]) -> None:
        self._host, self._told = host, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def swap(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        swapped = self._host.swap(name, before, after)
        if swapped:
            self._told(name, after)
        return swapped


def test_the_base_of_what_is_served_is_there_at_every_moment_of_a_cleaning(
    loaded: LoadedReleases, host: TableHost, clock: Clock
) -> None:
    load(loaded, 3)
    loaded.switch(BASE.release_id)
    for day in (4, 5, 6):
        delta = replace(release_of(day), delta=day, base=BASE.release_id, base_as_of=BASE.as_of)
        loaded.load(delta, hash_of(3), ROWS, blocks_of(3))
        loaded.switch(delta.release_id)
    clock.now_s += GRACE_S
    written = []

    def told(name: str, note: bytes | None) -> None:
        written.append(name)
        loaded._require(release_of(6).release_id)
        assert value_in(loaded, 3) == b"\x03"

    watched = LoadedReleases(Watched(host, told), clock)  # type: ignore[arg-type]
    assert watched.clean(2) == [release_of(4).release_id]
    assert written
    assert not [name for name in written if BASE.release_id in name]


@pytest.mark.parametrize("killed_outright", [True, False])
def test_a_cleaning_that_ends_before_it_removed_anything_takes_nothing_that_is_needed(
    loaded: LoadedReleases, host: TableHost, clock: Clock, killed_outright: bool
) -> None:
    """A release that was long idle is marked; then somebody serves a delta of it, and the cleaning ends."""
    for day in (1, 3):
        load(loaded, day)
    loaded.switch(release_of(1).release_id)
    clock.now_s += GRACE_S
    loaded.load(DELTA, hash_of(3), ROWS, blocks_of(3))
    (delta,) = [note for note in loaded._notes() if note.release == DELTA]
    host.swap(delta.name, delta.to_json(), None)

    def told(name: str, note: bytes | None) -> None:
        if note and Loaded.from_json(note, "").state is State.DOOMED:
            host.swap(delta.name, None, delta.to_json())
            raise KeyboardInterrupt

    dying = LoadedReleases(Watched(host, told), clock)  # type: ignore[arg-type]
    if killed_outright:
        dying._spare = lambda loaded: None  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        dying.clean(1)
    if killed_outright:
        with pytest.raises(NotFound):
            loaded.switch(DELTA.release_id)
        assert loaded.clean(1) == []
    assert loaded.switch(DELTA.release_id)
    assert value_in(loaded, 3) == b"\x03"


def attempt(action: Callable[[LoadedReleases], None], loaded: LoadedReleases) -> None:
    with suppress(NotFound, Conflict):
        action(loaded)


def test_a_release_that_another_process_just_loaded_is_not_taken_from_it(loaded: LoadedReleases, clock: Clock) -> None:
    load(loaded, 1)
    loaded.switch(release_of(1).release_id)
    load(loaded, 2)
    assert loaded.clean(1) == []
    clock.now_s += GRACE_S
    assert loaded.clean(1) == [release_of(2).release_id]


def test_damaged_notes_are_corrupt_or_passed_over_never_a_crash(loaded: LoadedReleases, host: TableHost) -> None:
    load(loaded, 1)
    for number, data in enumerate((b"{", b"[]", b'{"version":9}', b'{"version":1}', b"\xff")):
        host.swap(f"tables:odd{number}", None, data)
    assert loaded.releases() == [release_of(1)]
    host.swap(CURRENT, None, b"{}")
    with pytest.raises(CorruptArtifact, match="note current"):
        loaded.pointer()
