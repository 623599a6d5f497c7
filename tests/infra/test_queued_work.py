"""Queued work is taken once, in order, by whoever comes; in a file and in Redis alike."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import StoreError
from infra.queued_work import BESIDE_BYTES, DONE, FILE, QUEUED, TAKEN, Bounds, FileQueue, QueuedWork, open_queue

MIB = 1 << 20
Opened = Callable[..., QueuedWork]


@pytest.fixture(params=["file", "redis", "cluster"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens queues of one place, as several workers do."""
    names = {"redis": "redis_uri", "cluster": "redis_cluster_uri"}
    uri = str(tmp_path / "live") if request.param == "file" else request.getfixturevalue(names[request.param])
    made: list[QueuedWork] = []

    def one(most: int = 10, life_s: float = 600, kept_bytes: int = MIB) -> QueuedWork:
        made.append(open_queue(uri, Bounds(most, kept_bytes, life_s), 5.0))
        return made[-1]

    yield one
    for queue in made:
        queue.close()


def test_work_is_taken_in_order_and_its_result_found_by_others(opened: Opened) -> None:
    mine, other = opened(), opened()
    assert other.take() is None
    first, second = mine.put(b"1"), mine.put(b"2")
    assert first != second
    state = mine.get(first or "")
    assert state is not None
    assert (state.state, state.data) == (QUEUED, b"1")
    assert other.take() == (first, b"1")
    assert mine.get(first or "").state == TAKEN  # type: ignore[union-attr]
    assert mine.take() == (second, b"2")
    assert mine.take() is None
    other.finish(first or "", b"done \x00 q")
    found = mine.get(first or "")
    assert found is not None
    assert (found.state, found.data) == (DONE, b"done \x00 q")
    assert mine.get("0" * 32) is None


def test_what_is_put_back_waits_behind_the_others_for_the_rest_of_its_life(opened: Opened) -> None:
    queue = opened(life_s=600)
    first, second = queue.put(b"1"), queue.put(b"2")
    assert not queue.put_back(first or "", b"1", 60), "nobody took it"
    assert queue.take() == (first, b"1")
    assert not queue.put_back(first or "", b"1", 601)
    assert queue.put_back(first or "", b"again", 500)
    assert queue.get(first or "").state == QUEUED  # type: ignore[union-attr]
    assert [queue.take(), queue.take(), queue.take()] == [(second, b"2"), (first, b"again"), None]
    queue.clear()
    assert not queue.put_back(first or "", b"1", 0)


def test_no_more_waits_than_may(opened: Opened) -> None:
    queue = opened(most=2)
    assert all(queue.put(b"") for _ in range(2))
    assert queue.put(b"") is None
    queue.take()
    assert queue.put(b"") is not None


def test_no_more_is_kept_than_may_whatever_became_of_it(opened: Opened) -> None:
    room, most = 10_000, 3 * (10_000 + BESIDE_BYTES)
    queue = opened(kept_bytes=most)
    ids = [queue.put(b"", room), queue.put(bytes(room)), queue.put(b"", room)]
    assert None not in ids
    assert queue.put(b"") is None
    queue.take()
    assert queue.put(b"") is None, "what is taken has room for its result"
    queue.finish(ids[0] or "", bytes(room))
    assert queue.put(b"") is None, "results are kept too"
    queue.take()
    queue.finish(ids[1] or "", b"")
    assert opened(kept_bytes=most).put(bytes(room)) is None
    assert queue.put(b"", room - BESIDE_BYTES) is not None, "a result that is smaller leaves room"


def test_what_is_cleared_is_known_no_more(opened: Opened) -> None:
    queue = opened(kept_bytes=2 * BESIDE_BYTES)
    ids = [queue.put(b""), queue.put(b"")]
    queue.take()
    assert queue.clear() == 2
    assert [queue.get(one or "") for one in ids] == [None, None]
    queue.finish(ids[0] or "", b"late")
    assert queue.get(ids[0] or "") is None
    assert queue.take() is None
    assert queue.clear() == 0
    assert queue.put(b"") is not None


def test_of_several_who_take_each_has_other_work(opened: Opened) -> None:
    queues = [opened(most=100) for _ in range(4)]
    put = {queues[0].put(b"%d" % number) for number in range(40)}
    taken: list[str] = []

    def take(queue: QueuedWork) -> None:
        while (found := queue.take()) is not None:
            taken.append(found[0])

    threads = [threading.Thread(target=take, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(one for one in put if one)


def test_what_waits_outlives_whoever_put_it(opened: Opened) -> None:
    queue = opened()
    work_id = queue.put(b"later")
    queue.close()
    assert opened().take() == (work_id, b"later")


def test_work_and_results_are_forgotten_in_time(tmp_path: Path) -> None:
    """Of Redis it is the server that forgets."""
    now = [100.0]
    queue = FileQueue(tmp_path / FILE, Bounds(1, MIB, 10), clock=lambda: now[0])
    waits = queue.put(b"1") or ""
    now[0] = 110.5
    assert queue.get(waits) is None
    assert queue.take() is None
    done = queue.put(b"2") or ""
    assert done, "what is too old takes no place"
    assert queue.take() == (done, b"2")
    now[0] = 120
    queue.finish(done, b"3")
    now[0] = 129
    assert queue.get(done).data == b"3"  # type: ignore[union-attr]
    now[0] = 130.5
    assert queue.get(done) is None
    queue.close()


def test_redis_gives_room_back_for_what_it_forgot(redis_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Bounds(2, 2 * BESIDE_BYTES, 0.001)
    queue = open_queue(redis_uri, bounds, 5.0)
    for _ in range(6):
        work_id = queue.put(b"")
        while work_id is None:  # until a millisecond is over
            work_id = queue.put(b"")
        while queue.get(work_id) is not None:
            pass
    assert queue.take() is None
    queue.close()


def test_a_file_that_was_closed_is_not_opened_again(tmp_path: Path) -> None:
    queue = open_queue(str(tmp_path), Bounds(10, MIB, 10), 1)
    work_id = queue.put(b"") or ""
    queue.close()
    with pytest.raises(StoreError, match="closed"):
        queue.finish(work_id, b"late")


def test_the_folder_is_the_one_that_live_facts_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for uri in ("~/live", f"file://{tmp_path}/live"):
        queue = open_queue(uri, Bounds(10, MIB, 10), 1)
        assert queue.put(b"")
        queue.close()
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_a_clock_that_jumps_ahead_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue(str(tmp_path), Bounds(10, MIB, 600), 1)
    work_id = queue.put(b"1") or ""
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + 400 * 86_400 * 10**9)
    assert queue.take() == (work_id, b"1")
    taken = queue.get(work_id)
    assert taken is not None
    assert taken.age_s < 86_400
    queue.close()


def test_what_is_forgotten_is_overwritten(tmp_path: Path) -> None:
    queue = FileQueue(tmp_path / FILE, Bounds(10, MIB, 600))
    queue.put(b"somebody")
    assert queue.clear() == 1
    queue.close()
    assert all(b"somebody" not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_queue_nobody_uses_makes_no_file(tmp_path: Path) -> None:
    queue = open_queue(str(tmp_path / "live"), Bounds(10, MIB, 10), 1)
    assert queue.take() is None
    assert queue.get("0" * 32) is None
    assert not (tmp_path / "live").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="can be deleted"):
        open_queue(str(tmp_path), Bounds(10, MIB, 10), 1).put(b"")
