from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StoreError, UsageError
from infra.live_facts import LiveStore, open_live_facts
from infra.live_redis import HEAD, VIEWER, RedisLiveFacts
from infra.settings import EventSettings, Settings
from tests.suites.live_facts import NOW_US, SETTINGS, LiveFactsSuite, Reopen, event
from tests.suites.redis_server import RedisServer


@pytest.fixture
def reopen(redis_uri: str) -> Iterator[Reopen]:
    opened = []

    def open_again() -> RedisLiveFacts:
        facts = open_live_facts(redis_uri, SETTINGS)
        assert isinstance(facts, RedisLiveFacts)
        opened.append(facts)
        return facts

    yield open_again
    for facts in opened:
        facts.close()


class TestRedisLiveFacts(LiveFactsSuite):
    pass


class TestRedisClusterLiveFacts(LiveFactsSuite):
    @pytest.fixture
    def reopen(self, redis_cluster_uri: str) -> Iterator[Reopen]:
        opened = []

        def open_again() -> LiveStore:
            opened.append(open_live_facts(redis_cluster_uri, SETTINGS))
            return opened[-1]

        yield open_again
        for facts in opened:
            facts.close()


def test_what_was_recorded_outlives_a_kill_of_redis_that_writes_always(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, appendonly="yes", appendfsync="always").start()
    facts = open_live_facts(server.uri, SETTINGS)
    facts.record([event("blocked", 1, 2), event("banned", 9)])
    server.kill()
    with pytest.raises(StoreError, match="redis://"):
        facts.of(1)
    with pytest.raises(StoreError, match="redis://"):
        facts.record([event("blocked", 1, 3)])
    server.start()
    found = facts.of(1)
    assert dict(found.barred) == {2: "blocked"}
    assert dict(found.hidden) == {9: "banned"}
    facts.close()
    server.stop()


def test_somebody_who_is_erased_while_a_reader_catches_up_is_hidden_throughout(
    reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reader's two questions: who was changed, and how."""
    facts, reader = reopen(), reopen()
    facts.record([event("banned", 66)])
    assert dict(reader.of(1).hidden) == {66: "banned"}
    facts.record([event("banned", 66, at_us=NOW_US + 1), event("banned", 67)])
    assert isinstance(reader, RedisLiveFacts)
    changed_since = reader._client.zrangebyscore

    def erased_meanwhile(*asked: Any) -> Any:
        found = changed_since(*asked)
        facts.erase(66, NOW_US)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(reader._client, "zrangebyscore", erased_meanwhile)
        assert dict(reader.of(1).hidden) == {66: "banned", 67: "banned"}
    assert dict(reader.of(1).hidden) == {66: "erased", 67: "banned"}


def test_a_redis_that_lost_its_facts_is_not_taken_for_one_without_any(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    facts = open_live_facts(server.uri, SETTINGS)
    facts.record([event("blocked", 1, 2)])
    facts.of(1)
    server.kill()
    server.start()
    with pytest.raises(StoreError, match="gone"):
        facts.of(1)
    facts.record([event("blocked", 3, 4)])
    with pytest.raises(StoreError, match="gone"):
        facts.of(1)
    facts.close()
    server.stop()


def test_a_redis_that_lost_its_latest_events_hides_everybody_it_is_told_of_since(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    facts = open_live_facts(server.uri, SETTINGS)
    facts.record([event("banned", 90)])
    with server.client() as client:
        client.save()
    facts.record([event("banned", person) for person in range(91, 95)])
    versions = {facts.of(1).hidden_version}
    server.kill()
    server.start()  # from what was saved, as a replica that lagged would take over
    for person in range(95, 99):
        facts.record([event("banned", person)])
        found = facts.of(1)
        assert person in found.hidden
        assert found.hidden_version not in versions
        versions.add(found.hidden_version)
    facts.close()
    server.stop()


def test_a_redis_that_would_evict_facts_takes_none_until_it_would_not(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, maxmemory="100mb", maxmemory_policy="allkeys-lru").start()
    facts = open_live_facts(server.uri, SETTINGS)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"evicts .*allkeys-lru.*noeviction"):
            facts.record([event("blocked", 1, 2)])
    with server.client() as client:
        client.config_set("maxmemory-policy", "volatile-lru")
    assert facts.record([event("blocked", 1, 2)]) == {}
    facts.close()
    server.stop()


def test_an_event_sent_again_waits_for_replicas_again(tmp_path: Path) -> None:
    primary = RedisServer(tmp_path / "primary", repl_diskless_sync_delay="0").start()
    replica = RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {primary.port}").start()
    settings = Settings(events=EventSettings(redis_replicas=1, redis_timeout_ms=200))
    facts, sent = open_live_facts(primary.uri, settings), event("blocked", 1, 2)
    while not has_a_replica(primary):
        pass
    facts.record([event("blocked", 3, 4)])
    replica.hang()
    for _ in range(2):
        other_worker = open_live_facts(primary.uri, settings)
        with pytest.raises(StoreError, match="0 of 1 replicas"):
            other_worker.record([sent])
        other_worker.close()
    replica.resume()
    assert facts.record([sent]) == {}
    facts.close()
    replica.stop()
    primary.stop()


def has_a_replica(primary: RedisServer) -> bool:
    with primary.client() as client:
        client.incr("written")
        return client.wait(1, 1000) == 1


def test_a_redis_that_hangs_costs_no_more_than_the_setting(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    facts = open_live_facts(server.uri, Settings(events=EventSettings(redis_timeout_ms=500)))
    facts.of(1)
    server.hang()
    with pytest.raises(StoreError, match="did not answer in time"):
        facts.of(1)
    server.resume()
    facts.close()
    server.stop()


def test_an_event_that_too_few_replicas_have_is_not_accepted(redis_uri: str) -> None:
    facts = open_live_facts(redis_uri, Settings(events=EventSettings(redis_replicas=1, redis_timeout_ms=100)))
    with pytest.raises(StoreError, match="0 of 1 replicas"):
        facts.record([event("blocked", 1, 2)])
    facts.close()


def test_no_key_or_value_names_an_erased_person_but_the_record_of_it(redis_uri: str, shared_redis: RedisServer) -> None:
    person = 7_777_777_777
    facts = open_live_facts(redis_uri, SETTINGS)
    facts.record([event("connected", 1, person), event("shown", person, 3), event("banned", person)])
    facts.record([event("dismissed", 4, person), event("connected", 1, 4)])
    facts.unexported(10)
    facts.erase(person, NOW_US)
    with shared_redis.client() as client:
        holding = {key for key in client.scan_iter() if _names(client, key, str(person).encode())}
    assert holding == {b"{pymk:live}:erased"}
    facts.close()


def _names(client, key: bytes, person: bytes) -> bool:  # type: ignore[no-untyped-def]
    kind = client.type(key)
    if person in key:
        return True
    if kind == b"hash":
        return any(person in part for item in client.hgetall(key).items() for part in item)
    if kind == b"zset":
        return any(person in member for member in client.zrange(key, 0, -1))
    if kind == b"stream":
        return any(person in value for _, fields in client.xrange(key) for value in fields.values())
    return person in client.get(key)


def test_other_consumer_groups_read_the_stream_too(redis_uri: str, shared_redis: RedisServer) -> None:
    facts = open_live_facts(redis_uri, SETTINGS)
    facts.record([event("connected", 1, 2)])
    with shared_redis.client() as client:
        client.xgroup_create("{pymk:live}:events", "analytics", id="0")
        found = client.xreadgroup("analytics", "one", {"{pymk:live}:events": ">"})
    assert found[0][1][0][1][b"type"] == b"connected"
    facts.close()


def test_an_address_that_names_no_redis_is_refused() -> None:
    with pytest.raises(UsageError, match="names no Redis"):
        open_live_facts("redis://", SETTINGS)


def test_what_is_no_live_fact_is_a_failure_that_is_told(redis_uri: str, shared_redis: RedisServer) -> None:
    facts = open_live_facts(redis_uri, SETTINGS)
    with shared_redis.client() as client:
        client.hset("{pymk:live}:head", "changed", "text")
    with pytest.raises(StoreError, match="something else"):
        facts.of(1)
    facts.close()


def test_a_cluster_is_not_asked_for_replicas() -> None:
    with pytest.raises(UsageError, match="redis_replicas"):
        open_live_facts("redis+cluster://127.0.0.1:1", Settings(events=EventSettings(redis_replicas=1)))


def test_a_cluster_that_is_away_is_told_at_use() -> None:
    facts = open_live_facts("redis+cluster://127.0.0.1:1", SETTINGS)
    with pytest.raises(StoreError, match="cluster"):
        facts.of(1)
    facts.close()


def test_facts_read_before_an_event_never_have_the_version_of_those_after_it(reopen: Reopen) -> None:
    facts = reopen()
    assert isinstance(facts, RedisLiveFacts)
    facts.record([event("connected", 1, 3), event("banned", 8)])
    old = facts.of(1)
    found = facts._client.hgetall(f"{VIEWER}1")
    facts.record([event("blocked", 2, 1)])
    facts.record([event("banned", 9)])
    facts.of(7)  # another request has seen all of it
    late = facts._facts(1, dict(found), facts.of(1).hidden_version)
    assert late.version == old.version != facts.of(1).version
    assert 2 in facts.of(1).barred


def test_who_is_changed_while_a_reader_catches_up_is_hidden_at_once(reopen: Reopen) -> None:
    facts, writer = reopen(), reopen()
    assert isinstance(facts, RedisLiveFacts)
    facts.of(1)
    writer.record([event("banned", 9)])
    head = int(facts._client.hget(HEAD, "changed"))
    writer.record([event("opted_out", 9)])
    facts._follow(head, 0)  # of a reader that read the head between the two
    assert facts._hidden == {9: "banned"}
