"""Serving tables in a real Redis do what every store of them must, and say so when they are gone or do not fit."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from infra.errors import StoreError
from infra.kv import RANKINGS, USERS
from infra.redis_tables import FLUSH_BYTES, Keys, RedisHost
from infra.table_hosts import TableSet, open_host
from tests.suites.kv_stores import KeyValueSuite, Load, Rows, put_rows
from tests.suites.ports import free_port
from tests.suites.redis_server import RedisNodes, RedisServer
from tests.suites.table_hosts import TableHostSuite, set_of, write


@pytest.fixture
def host(redis_uri: str) -> Iterator[RedisHost]:
    opened = RedisHost(redis_uri, 60)
    yield opened
    opened.close()


class TestRedisTables(KeyValueSuite):
    @pytest.fixture
    def load(self, host: RedisHost) -> Load:
        return lambda rows: write(host, "one", rows)


class TestRedisHost(TableHostSuite):
    @pytest.fixture
    def uri(self, redis_uri: str) -> str:
        return redis_uri


class TestRedisClusterTables(KeyValueSuite):
    @pytest.fixture
    def load(self, redis_cluster_uri: str) -> Iterator[Load]:
        host = RedisHost(redis_cluster_uri, 60)
        yield lambda rows: write(host, "one", rows)
        host.close()


class TestRedisClusterHost(TableHostSuite):
    @pytest.fixture
    def uri(self, redis_cluster_uri: str) -> str:
        return redis_cluster_uri


def test_a_cluster_spreads_a_table_over_its_nodes_and_says_what_room_they_have(
    redis_cluster_uri: str, shared_redis_nodes: RedisNodes
) -> None:
    host = RedisHost(redis_cluster_uri, 60)
    write(host, "one", {USERS: dict.fromkeys(range(1000), b"x")}, 1000)
    clients = [node.client() for node in shared_redis_nodes.nodes]
    assert all(client.dbsize() > 2 for client in clients)
    host.check_room(1 << 40)
    for client in clients:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + (2 << 20))
    try:
        host.check_room(5 << 20)
        with pytest.raises(StoreError, match="will not fit"):
            host.check_room(7 << 20)
    finally:
        for client in clients:
            client.config_set("maxmemory", 0)
    host.drop(TableSet("one", {USERS: 1000}))
    assert [client.dbsize() for client in clients] == [0, 0, 0]
    host.close()


def test_a_cluster_that_lost_a_node_is_a_store_error_and_what_the_others_hold_is_read(tmp_path: Path) -> None:
    nodes = RedisNodes(tmp_path, cluster_require_full_coverage="no").start()
    try:
        host = open_host(nodes.uri, 1)
        rows = {USERS: {key: b"%d" % key for key in range(100)}}
        reader = write(host, "one", rows)  # type: ignore[arg-type]
        nodes.nodes[1].kill()
        found = []
        for key in rows[USERS]:
            with suppress(StoreError):
                found.append(reader.get(USERS, key))
        assert 0 < len(found) < 100
        assert set(found) <= set(rows[USERS].values())
        with pytest.raises(StoreError):
            reader.get_many(USERS, list(rows[USERS]))
    finally:
        nodes.stop()


def test_a_row_larger_than_what_is_sent_at_a_time_and_many_small_ones_arrive(host: RedisHost) -> None:
    draw = np.random.default_rng(1)
    rows = {RANKINGS: {1: draw.bytes(2 * FLUSH_BYTES), 2: b"", 3: draw.bytes(FLUSH_BYTES - 1), 4: b"x"}}
    reader = write(host, "one", rows, batch=4)
    assert reader.get_many(RANKINGS, [4, 3, 2, 1]) == [rows[RANKINGS][key] for key in (4, 3, 2, 1)]


def test_a_batched_read_is_one_round_trip(host: RedisHost, shared_redis: RedisServer) -> None:
    reader = write(host, "one", {USERS: {key: b"%d" % key for key in range(200)}}, 200)
    client = shared_redis.client()
    reads = client.info("stats")["total_reads_processed"]
    assert None not in reader.get_many(USERS, range(200))
    assert client.info("stats")["total_reads_processed"] - reads == 2, "one for the rows, one for asking"


def test_the_hashes_of_a_table_grow_with_its_rows() -> None:
    counts = {n: Keys(TableSet("t", {RANKINGS: n, USERS: 1})).partitions for n in (0, 10**5, 10**6, 10**9)}
    assert counts == {0: 16, 10**5: 16, 10**6: 128, 10**9: 4096}


def test_rows_of_a_redis_that_was_emptied_are_an_error_not_unknown_users(
    host: RedisHost, shared_redis: RedisServer
) -> None:
    reader = write(host, "one", {USERS: {1: b"x"}})
    assert reader.get(USERS, 2) is None
    shared_redis.client().flushall()
    for read in (lambda: reader.get(USERS, 1), lambda: reader.get_many(USERS, [1, 2])):
        with pytest.raises(StoreError, match=r"are gone\. Load the release again"):
            read()


def test_rows_that_went_with_a_node_of_a_cluster_are_an_error_not_unknown_users(
    host: RedisHost, shared_redis: RedisServer
) -> None:
    rows: Rows = {USERS: dict.fromkeys(range(100), b"x")}
    reader = write(host, "one", rows, 100)
    shared_redis.client().delete(*Keys(set_of("one", rows)).hashes[USERS][:5])  # as a node that came back empty
    found = []
    for key in range(200):
        with suppress(StoreError):
            found.append((key, reader.get(USERS, key)))
    assert 100 < len(found) < 200
    assert all((value is None) == (key >= 100) for key, value in found)
    with pytest.raises(StoreError, match="are gone"):
        reader.get_many(USERS, range(100))


def test_rows_of_an_earlier_version_without_marks_are_read(host: RedisHost, shared_redis: RedisServer) -> None:
    rows: Rows = {USERS: {1: b"x"}}
    reader, keys, client = write(host, "one", rows), Keys(set_of("one", rows)), shared_redis.client()
    client.set(keys.whole, b"1")
    for name in keys.hashes[USERS]:
        client.hdel(name, "whole")
    assert (reader.get(USERS, 1), reader.get(USERS, 2)) == (b"x", None)
    assert reader.get_many(USERS, [2, 1]) == [None, b"x"]


def test_rows_that_redis_lost_while_they_were_loaded_are_noticed(host: RedisHost, shared_redis: RedisServer) -> None:
    rows = {USERS: dict.fromkeys(range(100), b"x")}
    writer = host.writer(set_of("one", rows))
    put_rows(writer, rows)
    shared_redis.client().delete(Keys(set_of("one", rows)).hashes[USERS][0])
    with pytest.raises(StoreError, match=r"users holds \d+ rows of 100"):
        writer.finish()
    with pytest.raises(StoreError, match="are gone"):
        host.reader(set_of("one", rows)).get(USERS, 1000)


def test_a_redis_without_room_or_that_evicts_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, maxmemory="100mb").start()
    try:
        host = RedisHost(server.uri, 5)
        host.check_room(20 << 20)
        with pytest.raises(StoreError, match=r"100 MiB will not fit in the \d+ MiB left"):
            host.check_room(100 << 20)
        server.client().config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreError, match="rows would vanish"):
            host.check_room(1)
    finally:
        server.stop()


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_redis_that_is_down_is_a_store_error_at_every_door(scheme: str) -> None:
    host = open_host(f"{scheme}://127.0.0.1:{free_port()}", 1)
    tables = TableSet("one", {USERS: 1})
    for do in (
        lambda: host.reader(tables).get(USERS, 1), lambda: host.reader(tables).get_many(USERS, [1]), host.notes,
        lambda: host.note("a"), lambda: host.swap("a", None, b"1"), lambda: host.drop(tables),
        lambda: host.check_room(1), lambda: host.writer(tables).finish(),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="Check the address, and that Redis runs"):
            do()
