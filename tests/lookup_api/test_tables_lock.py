"""The served release's tables are kept in memory, and what the system refuses is tried again and told."""

from pathlib import Path

import pytest

from infra import lmdb_tables
from infra.memory_lock import MemoryLock, NotLocked
from infra.store import ObjectStore
from lookup_api.metrics import Metrics
from lookup_api.release_watch import ReleaseWatch
from lookup_api.tables_lock import TablesLock
from tests.suites.served_store import new_store, publish_day


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return new_store(tmp_path)


class Served:
    def __init__(self, store: ObjectStore) -> None:
        self.metrics = Metrics()
        self.watch = ReleaseWatch(store.uri, 1.0, self.metrics)
        self.lock = TablesLock(self.watch.take, self.metrics.tables_locked)

    def look(self) -> float | None:
        """Bytes locked, as the metrics tell."""
        self.watch.look()
        self.lock.look()
        return self.metrics.registry.get_sample_value("pymk_tables_locked_bytes")


def locked_bytes() -> int:
    """Locked in memory by this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")]
    return int(line.split()[1]) << 10


def test_locked_are_the_tables_of_the_served_release_alone(store: ObjectStore) -> None:
    publish_day(store, 1)
    before, served = locked_bytes(), Served(store)
    first = served.look()
    assert first
    assert locked_bytes() - before == first
    publish_day(store, 2)
    second = served.look()
    assert second
    assert locked_bytes() - before == second
    served.watch.stop()
    assert locked_bytes() == before


def test_what_is_refused_is_served_told_once_and_tried_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Path] = []

    def only_one(path: Path) -> MemoryLock:
        if taken:
            raise NotLocked(f"{path}: too large", "Turn api.lock_tables off.")
        taken.append(path)
        return MemoryLock(path)

    publish_day(store, 1)
    served = Served(store)
    monkeypatch.setattr(lmdb_tables, "MemoryLock", only_one)
    part = served.look()
    assert served.look() == part
    assert served.watch.ready
    assert part
    assert part == taken[0].stat().st_size
    assert caplog.text.count("not all tables") == 1
    monkeypatch.setattr(lmdb_tables, "MemoryLock", MemoryLock)
    whole = served.look()
    assert whole
    assert whole > part
    served.watch.stop()


def test_the_lock_follows_in_the_background_until_it_is_stopped(store: ObjectStore) -> None:
    publish_day(store, 1)
    served = Served(store)
    served.watch.look()
    served.lock.start()
    served.lock.stop()
    served.lock._thread.join(60)
    assert not served.lock._thread.is_alive()
    served.watch.stop()
