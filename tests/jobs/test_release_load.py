"""A published release is loaded into a host as it is, by one command, and rolled back there by the same."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import open_artifact
from infra.errors import CorruptArtifact, StoreError
from infra.kv import SERVING_TABLES
from infra.lmdb_tables import LmdbTables
from infra.loaded_releases import LoadedReleases
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore
from infra.table_hosts import TableHost, open_host
from jobs.release_load import SERVING, load_release
from tests.suites.command import pymk_json
from tests.suites.redis_server import RedisServer
from tests.suites.served_store import new_store, publish_day

USERS = 60
DIES_HALF_WAY = """
import os, signal
from infra.lmdb_tables import LmdbTables
from jobs.cli import main

blocks = LmdbTables.blocks

def some(tables, table):
    for number, block in enumerate(blocks(tables, table, 50)):
        if (table, number) == ("candidates", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        yield block

LmdbTables.blocks = some
main()
"""


@pytest.fixture(params=["redis", "dynamodb"])
def host(request: pytest.FixtureRequest) -> Iterator[TableHost]:
    uri = request.getfixturevalue("redis_uri" if request.param == "redis" else "s3_bucket")
    opened = open_host(uri if request.param == "redis" else f"dynamodb://{uri}", 60)
    yield opened
    opened.close()


def load(
    store: ObjectStore, release: Release, host: TableHost, keep: int = 2, switch: bool = True
) -> dict[str, object]:
    return load_release(store, release, host, keep, switch, lambda line: None)


def folder_of(store: ObjectStore, release: Release) -> Path:
    return open_artifact(store, SERVING, release.artifacts[SERVING].artifact_id).path


def test_every_row_of_the_release_is_there_afterwards(tmp_path: Path, host: TableHost) -> None:
    store = new_store(tmp_path)
    release = publish_day(store, 1, USERS)
    assert load(store, release, host)["loaded"]
    files = LmdbTables(folder_of(store, release))
    reader = LoadedReleases(host).open(release.release_id)
    for table in SERVING_TABLES:
        assert reader.count(table) == files.count(table)
        for keys, values, ends in files.blocks(table, 50):
            starts = [0, *ends.tolist()]
            rows = [values[start:end].tobytes() for start, end in zip(starts, ends.tolist(), strict=False)]
            assert reader.get_many(table, keys.tolist()) == rows
    files.close()


def test_a_release_that_does_not_verify_is_not_loaded(tmp_path: Path, host: TableHost) -> None:
    store = new_store(tmp_path)
    release = publish_day(store, 1, USERS)
    file = folder_of(store, release) / "part-00000.lmdb"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifact, match="part-00000"):
        load(store, release, host)
    assert host.notes() == {}


def test_a_redis_that_fills_up_keeps_serving_what_it_served(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    first, second = publish_day(store, 1, USERS), publish_day(store, 2, USERS * 20)
    server = RedisServer(tmp_path / "redis").start()
    try:
        host = open_host(server.uri)
        load(store, first, host)
        client = server.client()
        client.config_set("maxmemory", client.info("memory")["used_memory"] + (1 << 20))
        with pytest.raises(StoreError, match="will not fit"):
            load(store, second, host)
        host.check_room = lambda size_bytes: None  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="Redis is full"):
            load(store, second, host)
        client.config_set("maxmemory", 0)
        loaded = LoadedReleases(host)
        assert loaded.releases() == [first]
        assert loaded.pointer().release_id == first.release_id  # type: ignore[union-attr]
        assert loaded.open(first.release_id).count("rankings") == USERS
    finally:
        server.stop()


def test_the_release_before_stays_and_loading_it_again_only_goes_back_to_it(tmp_path: Path, host: TableHost) -> None:
    store = new_store(tmp_path)
    days = [publish_day(store, day, USERS) for day in range(3)]
    ids = [release.release_id for release in days]
    assert [load(store, release, host)["removed"] for release in days] == [[], [], ids[:1]]
    back = load(store, days[1], host)
    assert (back["loaded"], back["switched"], back["served"], back["removed"]) == (False, True, ids[1], [])
    apart = load(store, days[0], host, switch=False)
    assert (apart["loaded"], apart["served"], apart["removed"]) == (True, ids[1], [])


def test_a_release_that_current_does_not_name_is_left_where_it_is(tmp_path: Path, redis_uri: str) -> None:
    """The task that hands it over is cleared, or CURRENT goes back while it loads."""
    store, host = new_store(tmp_path), open_host(redis_uri, 60)
    first, second = (publish_day(store, day, USERS) for day in range(2))
    old = load_release(store, first, host, 2, True, print, if_current=True)
    assert (old["loaded"], old["switched"], old["served"]) == (False, False, None)
    load(store, first, host)

    blocks = LmdbTables.blocks

    def withdrawn_meanwhile(tables: LmdbTables, table: str) -> Iterator[Any]:
        if ReleaseStore(store).current_id() == second.release_id:
            ReleaseStore(store).rollback()
        return blocks(tables, table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LmdbTables, "blocks", withdrawn_meanwhile)
        late = load_release(store, second, host, 2, True, print, if_current=True)
    assert (late["loaded"], late["switched"], late["served"]) == (True, False, first.release_id)
    words = ["release", "load", first.release_id, "--if-current", f"--store={store.uri}", f"--into={redis_uri}"]
    assert pymk_json(*words)["served"] == first.release_id
    host.close()


def test_the_command_loads_what_current_names_and_serves_it(tmp_path: Path, redis_uri: str) -> None:
    store = new_store(tmp_path)
    release = [publish_day(store, day, USERS) for day in range(2)][1]
    made = pymk_json("release", "load", f"--store={store.uri}", f"--into={redis_uri}")
    assert (made["loaded"], made["release_id"], made["served"]) == (True, release.release_id, release.release_id)
    host = open_host(redis_uri)
    assert LoadedReleases(host).releases() == [release]
    host.close()


def test_a_load_that_is_killed_changes_nothing_and_does_not_stand_in_the_way(tmp_path: Path, redis_uri: str) -> None:
    store = new_store(tmp_path)
    first, second = publish_day(store, 1, USERS), publish_day(store, 2, 2 * USERS)
    host = open_host(redis_uri)
    load(store, first, host)
    loaded = LoadedReleases(host)
    flags = ["release", "load", f"--store={store.uri}", f"--into={redis_uri}"]
    killed = subprocess.run([sys.executable, "-c", DIES_HALF_WAY, *flags], stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(host.notes()) == 3, "it had begun"
    assert loaded.releases() == [first]
    assert loaded.open(first.release_id).count("rankings") == USERS
    assert load(store, second, host)["served"] == second.release_id
    assert loaded.open(second.release_id).count("rankings") == 2 * USERS
    host.close()


def test_the_command_says_what_it_lacks(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    assert "api.tables" in pymk_json("release", "load", f"--store={store.uri}", code=2)["error"]["fix"]
    into = "--into=redis://127.0.0.1:1/0"
    publish_day(store, 1, USERS)
    assert "Redis runs" in pymk_json("release", "load", f"--store={store.uri}", into, code=1)["error"]["fix"]
