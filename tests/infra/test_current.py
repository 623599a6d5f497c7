"""CURRENT, the pointer to what is served: damage to it, marks of what was withdrawn, and writers who race for it."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from infra.errors import Conflict, CorruptArtifact, StoreError
from infra.release_files import Pointer
from infra.release_records import withdrawn_releases
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from tests.suites.release_family import make_release


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


DAMAGED = [b"", b'{"release_id": "2026', b"[]", b'{"release_id": "../x"}', b'{"release_id": "a", "history": "abc"}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_current_says_what_replaces_it_and_force_does(store: ObjectStore, content: bytes) -> None:
    releases = ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    releases.publish(first)
    store.put("CURRENT", content)
    for what in (
        releases.current,
        releases.current_id,
        releases.rollback,
        lambda: releases.clean(1),
        lambda: releases.publish(second),
    ):
        with pytest.raises(CorruptArtifact, match=r"CURRENT: not a release pointer.*`pymk release publish ID --force`"):
            what()
    assert store.get("CURRENT").data == content
    assert releases.current(repairing=True) is None
    assert make_release(store, days=2).parents == ()
    assert releases.publish(second, force=True)
    assert releases.current() == second


def test_a_repaired_current_knows_the_withdrawn_releases(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, bad, third, next_ = (make_release(store, days) for days in range(4))
    for release in (first, bad):
        releases.publish(release)
    releases.rollback()
    store.put("CURRENT", b"{")
    assert releases.publish(third, force=True)
    assert releases.look().pointer == Pointer(third.release_id, withdrawn=(bad.release_id,))
    releases.rollback(first.release_id)
    assert not releases.publish(bad)
    assert releases.publish(bad, force=True)
    store.put("CURRENT", b"{")
    releases.publish(next_, force=True)
    assert releases.look().pointer == Pointer(next_.release_id, withdrawn=(third.release_id,)), "what came back is not"
    assert len(releases.list()) == 4, "a mark is no release"


def test_withdrawn_releases_of_an_earlier_current_are_marked_when_it_moves(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, bad, third = (make_release(store, days) for days in range(3))
    store.put("CURRENT", orjson.dumps({"release_id": first.release_id, "withdrawn": [bad.release_id]}))
    releases.publish(third)
    assert withdrawn_releases(store) == {bad.release_id}
    releases.clean(keep=1, grace_s=0)
    assert withdrawn_releases(store) == set()


def test_current_that_moved_cannot_fail_for_want_of_a_mark(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    releases = ReleaseStore(store)
    first, bad = (make_release(store, days) for days in range(2))
    for release in (first, bad):
        releases.publish(release)
    put = store.put

    def put_current(key: str, data: bytes, **condition: Any) -> str:
        if key != "CURRENT":
            raise StoreError(f"{key}: no room")
        return put(key, data, **condition)

    monkeypatch.setattr(store, "put", put_current)
    assert releases.rollback() == first
    assert "known to CURRENT alone" in caplog.text


def test_current_that_is_not_what_was_judged_is_not_moved(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, second, third = (make_release(store, days) for days in range(3))
    empty = releases.look()
    releases.publish(first)
    seen = releases.look()
    releases.publish(second)
    for over in (empty, seen):
        with pytest.raises(Conflict, match="was moved meanwhile"):
            releases.publish(third, over=over)
    assert releases.current() == second
    assert releases.publish(third, over=releases.look())


def test_who_repairs_current_second_does_not_overwrite_the_first(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that saw the damage loses to one that repaired it meanwhile, looks again and then goes forward."""
    releases, other = ReleaseStore(store), ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    store.put("CURRENT", b"{")
    conditions: list[str | None] = []
    put = store.put

    def put_late(key: str, data: bytes, **condition: Any) -> str:
        if not conditions:
            conditions.append(condition["if_match"])
            assert other.publish(first, force=True)
        else:
            conditions.append(condition["if_match"])
        return put(key, data, **condition)

    monkeypatch.setattr(store, "put", put_late)
    assert releases.publish(second, force=True)
    pointer = releases.pointer()
    assert pointer is not None
    assert (pointer.release_id, pointer.history) == (second.release_id, (first.release_id,))
    assert len(set(conditions)) == 2, "the damaged one, and the one that the other wrote"


def test_force_replaces_a_release_whose_file_is_damaged(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    releases.publish(second)
    store.put(f"releases/{second.release_id}.json", b"{")
    with pytest.raises(CorruptArtifact, match=f"`pymk release publish {first.release_id} --force`"):
        releases.publish(first)
    assert releases.publish(first, force=True)
    assert releases.current() == first
