"""Keys open what they were made for, until they are revoked or expire, and nothing stored tells what a key is."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import CorruptArtifact, NotFound, StoreError, UsageError
from infra.key_ring import Holder, KeyRing
from infra.keys import FILE, SCOPES, KeyStore
from infra.store import ObjectStore, cache_folder, open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/keys", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


def ring_of(store: ObjectStore, now: datetime = NOW) -> KeyRing:
    ring = KeyRing(store.uri, clock=now.timestamp)
    assert ring.look()
    return ring


def test_a_key_opens_what_it_was_made_for_and_nothing_else(store: ObjectStore) -> None:
    keys = KeyStore(store)
    made = {scopes: keys.create("mobile", scopes, NOW)[1] for scopes in (("read",), ("events",), SCOPES)}
    ring = ring_of(store)
    assert {scopes: ring.scopes(text) for scopes, text in made.items()} == {s: frozenset(s) for s in made}


def test_only_the_whole_key_opens(store: ObjectStore) -> None:
    key, text = KeyStore(store).create("mobile", ["read"], NOW)
    ring = ring_of(store)
    last = "0" if text[-1] != "0" else "1"
    for wrong in ("", text[:-1], text[:-1] + last, text + "0", text.upper(), f" {text}", key.key_id, key.sha256):
        assert ring.scopes(wrong) is None, wrong


@given(st.text())
def test_no_other_text_opens_or_raises(text: str) -> None:
    ring = KeyRing("/nowhere")
    ring._holders = {"0123456789ab": Holder("0123456789ab", frozenset(SCOPES), bytes(32), NOW.timestamp())}
    assert ring.scopes(text) is None
    assert ring.scopes(f"pymk_0123456789ab_{text}") is None


def test_nothing_of_the_key_but_its_id_is_stored_or_listed(store: ObjectStore) -> None:
    key, text = KeyStore(store).create("mobile", ["read"], NOW)
    secret = text.removeprefix(f"pymk_{key.key_id}_")
    assert len(secret) == 64
    kept = store.get(FILE).data.decode()
    assert key.sha256 in kept
    assert not [start for start in range(60) if secret[start : start + 5] in kept.replace(key.sha256, "")]


def test_keys_are_never_the_same(store: ObjectStore) -> None:
    keys = KeyStore(store)
    assert len({keys.create("a", ["read"], NOW)[1].split("_")[i] for _ in range(20) for i in (1, 2)}) == 40


def test_a_revoked_key_opens_nothing_from_the_next_look_on(store: ObjectStore) -> None:
    keys = KeyStore(store)
    (key, text), (_, other) = keys.create("a", ["read"], NOW), keys.create("b", ["read"], NOW)
    ring = ring_of(store)
    revoked = keys.revoke(key.key_id, NOW - timedelta(seconds=1))
    assert keys.revoke(key.key_id, NOW) == revoked, "the first revocation stands"
    assert ring.look()
    assert (ring.scopes(text), ring.scopes(other)) == (None, frozenset({"read"}))
    assert [k.revoked_at for k in keys.listed()] == [revoked.revoked_at, None]


def test_an_expired_key_opens_nothing(store: ObjectStore) -> None:
    _, text = KeyStore(store).create("a", ["read"], NOW, expires_days=1)
    assert ring_of(store, NOW + timedelta(days=1, seconds=-1)).scopes(text)
    assert ring_of(store, NOW + timedelta(days=1)).scopes(text) is None


def test_a_clock_that_is_behind_or_jumps_back_opens_no_key_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, now = KeyStore(store), datetime.now(UTC)
    (key, revoked), (_, expired) = (
        keys.create("a", ["read"], now), keys.create("b", ["read"], now - timedelta(days=2), expires_days=1)
    )  # fmt: skip
    keys.revoke(key.key_id, now)
    ring = KeyRing(store.uri)
    assert ring.look()
    early = time.time_ns() - int(3 * 86_400e9)
    monkeypatch.setattr("time.time_ns", lambda: early)
    monkeypatch.setattr("time.time", lambda: early / 1e9)
    assert (ring.scopes(revoked), ring.scopes(expired)) == (None, None)


def test_a_ring_is_empty_only_where_no_key_was_ever_made(store: ObjectStore) -> None:
    keys = KeyStore(store)
    ring = ring_of(store)
    assert ring.empty()
    key, text = keys.create("a", ["read"], NOW)
    ring.look()
    assert not ring.empty()
    keys.revoke(key.key_id, NOW)
    ring.look()
    assert (ring.empty(), ring.scopes(text)) == (False, None)


def test_losing_or_damaging_the_file_opens_no_door_and_closes_none(store: ObjectStore) -> None:
    _, text = KeyStore(store).create("a", ["read"], NOW)
    ring = ring_of(store)
    store.put(FILE, b"{")
    assert not ring.look()
    assert (ring.empty(), ring.scopes(text)) == (False, frozenset({"read"}))
    store.delete(FILE)
    ring.look()
    assert (ring.empty(), ring.scopes(text)) == (False, frozenset({"read"}))


def test_before_it_was_read_nothing_opens_and_nothing_is_known(tmp_path: Path) -> None:
    ring = KeyRing(str(tmp_path / "nowhere"))
    assert not ring.look()
    assert (ring.known(), ring.empty(), ring.scopes("x")) == (False, False, None)


def test_a_worker_that_starts_while_a_remote_store_is_away_knows_the_keys_known_last(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{s3_bucket}/keys", writable=True)
    keys = KeyStore(store)
    (key, text), (gone, revoked) = keys.create("a", ["read"], NOW), keys.create("b", ["read"], NOW)
    ring_of(store)
    keys.revoke(gone.key_id, NOW)
    running = ring_of(store)

    def away(uri: str) -> ObjectStore:
        raise StoreError(f"{uri}: away")

    with monkeypatch.context() as patch:
        patch.setattr("infra.key_ring.open_store", away)
        ring = KeyRing(store.uri, clock=NOW.timestamp)
        assert not ring.look()
        assert (ring.known(), ring.scopes(text), ring.scopes(revoked)) == (True, frozenset({"read"}), None)
    keys.revoke(key.key_id, NOW)
    assert ring.look()
    assert running.look()
    assert (ring.scopes(text), running.scopes(text)) == (None, None)
    copies = list((cache_folder() / "keys").iterdir())
    assert [path.stat().st_mode & 0o077 for path in copies] == [0]


def test_a_copy_of_no_keys_does_not_stand_for_those_made_since(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"s3://{s3_bucket}/keys", writable=True)
    assert ring_of(store).empty()
    KeyStore(store).create("made while the server was down", ["read"], NOW)

    def away(uri: str) -> ObjectStore:
        raise StoreError(f"{uri}: away")

    monkeypatch.setattr("infra.key_ring.open_store", away)
    ring = KeyRing(store.uri, clock=NOW.timestamp)
    assert not ring.look()
    assert (ring.known(), ring.empty()) == (False, False)


def test_a_copy_that_could_not_be_kept_is_kept_later(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"s3://{s3_bucket}/keys", writable=True)
    KeyStore(store).create("a", ["read"], NOW)
    ring = KeyRing(store.uri, clock=NOW.timestamp)

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("infra.key_ring.os.replace", full)
        assert not ring.look()
    assert not ring.empty()
    assert ring.look()
    assert [path.suffix for path in (cache_folder() / "keys").iterdir()] == [".json"]


def test_keys_made_at_once_are_all_kept(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: KeyStore(store).create(f"{n}", ["read"], NOW)[0].key_id, range(16)))
    assert {key.key_id for key in KeyStore(store).listed()} == set(made)


def test_a_ring_follows_by_itself(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    ring = KeyRing(store.uri, poll_s=0.01)
    ring.start()
    _, text = KeyStore(store).create("a", ["read"], NOW)
    end = time.monotonic() + 60
    while ring.scopes(text) is None and time.monotonic() < end:
        time.sleep(0.01)
    ring.stop()
    assert ring.scopes(text) == frozenset({"read"})


@pytest.mark.parametrize(
    ("name", "scopes", "said"),
    [
        ("a", [], "no scope"),
        ("a", ["write"], "write: no scope"),
        ("", ["read"], "no name"),
        ("a\n", ["read"], "no name"),
    ],
)
def test_what_is_no_name_or_scope_is_refused(store: ObjectStore, name: str, scopes: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        KeyStore(store).create(name, scopes, NOW)
    assert KeyStore(store).listed() == []


def test_a_key_that_is_not_there_cannot_be_revoked(store: ObjectStore) -> None:
    with pytest.raises(NotFound, match="pymk key list"):
        KeyStore(store).revoke("0" * 12, NOW)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"keys":[]}', b'{"version":2,"keys":[]}', b'{"version":1,"keys":[{}]}', b"[" * 99_999],
)
def test_a_damaged_file_is_corrupt_not_a_crash(store: ObjectStore, data: bytes) -> None:
    store.put(FILE, data)
    with pytest.raises(CorruptArtifact, match=r"keys\.json"):
        KeyStore(store).listed()


@pytest.mark.parametrize(
    ("field", "value"),
    [("key_id", "x"), ("sha256", "00"), ("scopes", ["all"]), ("created_at", "2026-01-01"), ("expires_at", "soon")],
)
def test_a_file_with_one_odd_value_is_corrupt(store: ObjectStore, field: str, value: object) -> None:
    KeyStore(store).create("a", ["read"], NOW)
    values = json.loads(store.get(FILE).data)
    values["keys"][0][field] = value
    store.put(FILE, json.dumps(values).encode())
    with pytest.raises(CorruptArtifact):
        KeyStore(store).listed()


def test_a_store_that_ignores_conditions_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    store.conditional_puts = False
    with pytest.raises(StoreError, match="ignores conditional puts"):
        KeyStore(store).create("a", ["read"], NOW)
