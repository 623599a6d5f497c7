"""Addresses of Redis never carry secrets, and what Redis refuses is said with what would fix it."""

from pathlib import Path

import pytest
import redis

from infra.errors import StoreError, UsageError
from infra.redis_connection import connect, explained, is_redis, shown
from tests.suites.ports import free_port
from tests.suites.redis_server import RedisServer


@pytest.mark.parametrize("uri", ["redis://me:secret@host/0", "rediss://:secret@host:1/0", "redis://me@host/0"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(UsageError, match="PYMK_REDIS_PASSWORD") as caught:
        connect(uri, 1)
    assert "secret" not in str(caught.value)
    assert "me" not in shown(uri)


@pytest.mark.parametrize("uri", ["http://host", "redis://", "/folder", "redis://host:x/0"])
def test_what_is_no_address_of_redis_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="redis://host:port/db"):
        connect(uri, 1)


def test_addresses_of_redis_are_told_from_folders_and_other_stores() -> None:
    assert all(is_redis(uri) for uri in ("redis://h:1", "rediss://h", "unix:///s"))
    assert not any(is_redis(uri) for uri in ("/a", "a/b", "s3://b", "file:///a"))


def test_user_and_password_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer(tmp_path, user="worker on >right ~* &* +@all").start()
    try:
        monkeypatch.setenv("PYMK_REDIS_USERNAME", "worker")
        monkeypatch.setenv("PYMK_REDIS_PASSWORD", "right")
        assert connect(server.uri, 5).ping()
        monkeypatch.setenv("PYMK_REDIS_PASSWORD", "wrong")
        with pytest.raises(StoreError, match="Check PYMK_REDIS_USERNAME and PYMK_REDIS_PASSWORD"), explained("here"):
            connect(server.uri, 5).ping()
    finally:
        server.stop()


def test_redis_that_is_not_there_hangs_or_is_full_is_a_store_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"here: .*Check the address, and that Redis runs"), explained("here"):
        connect(f"redis://127.0.0.1:{free_port()}/0", 1).ping()
    server = RedisServer(tmp_path).start()
    try:
        client, hurried = connect(server.uri, 60), connect(server.uri, 0.05)
        server.client().config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"Redis is full.*Raise its maxmemory"), explained("here"):
            client.set("key", b"x")
        server.hang()
        with pytest.raises(StoreError, match="did not answer in time"), explained("here"):
            hurried.ping()
        server.resume()
        server.kill()
        with pytest.raises(StoreError, match="Check the address"), explained("here"):
            client.ping()
        server.start()
        assert client.ping(), "a client outlives the server that it first spoke to"
    finally:
        server.stop()


def test_a_replica_that_takes_no_writes_is_told_from_a_full_one(shared_redis: RedisServer, tmp_path: Path) -> None:
    replica = RedisServer(tmp_path, replicaof=f"127.0.0.1 {shared_redis.port}").start()
    try:
        with pytest.raises(StoreError, match="Name the primary"), explained("here"):
            connect(replica.uri, 5).set("key", b"x")
    finally:
        replica.stop()


def test_other_errors_pass_through() -> None:
    with pytest.raises(ValueError, match="mine"), explained("here"):
        raise ValueError("mine")
    with pytest.raises(StoreError, match="here: odd"), explained("here"):
        raise redis.ResponseError("odd")
