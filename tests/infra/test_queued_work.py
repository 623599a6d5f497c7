"""Queued work is taken once, in order, by whoever comes; in a file and in Redis alike."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.errors import StoreError
from infra.queued_work import DONE, FILE, QUEUED, TAKEN, FileQueue, QueuedWork, open_queue

Opened = Callable[..., QueuedWork]


@pytest.fixture(params=["file", "redis", "cluster"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens queues of one place, as several workers do."""
    names = {"redis": "redis_uri", "cluster": "redis_cluster_uri"}
    uri = str(tmp_path / "live") if request.param == "file" else request.getfixturevalue(names[request.param])
    made: list[QueuedWork] = []

    def one(most: int = 10, life_s: float = 600) -> QueuedWork:
        made.append(open_queue(uri, most, life_s, 5.0))
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


def test_no_more_waits_than_may(opened: Opened) -> None:
    queue = opened(most=2)
    assert all(queue.put(b"") for _ in range(2))
    assert queue.put(b"") is None
    queue.take()
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
    queue = FileQueue(tmp_path / FILE, 1, 10, clock=lambda: now[0])
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


def test_a_queue_nobody_uses_makes_no_file(tmp_path: Path) -> None:
    queue = open_queue(str(tmp_path / "live"), 10, 10, 1)
    assert queue.take() is None
    assert queue.get("0" * 32) is None
    assert not (tmp_path / "live").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="can be deleted"):
        open_queue(str(tmp_path), 10, 10, 1).put(b"")
