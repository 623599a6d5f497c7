from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from infra.artifacts import Manifest, artifact_id, find_manifest, open_artifact, write_artifact
from infra.errors import Conflict, CorruptArtifact, NotFound, PymkError, StoreError
from infra.release_files import Pointer
from infra.release_records import withdrawn_releases
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore, open_store
from infra.times import format_time

DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def make_artifact(store: ObjectStore, kind: str, as_of: datetime, parents: dict[str, str], content: bytes) -> Manifest:
    folder = store.scratch()
    (folder / "data").mkdir()
    (folder / "data" / "part").write_bytes(content)
    made = Manifest(
        kind=kind,
        artifact_id=artifact_id(kind, parents, {}, as_of, "1"),
        as_of=format_time(as_of),
        parents=parents,
        settings={},
        seed=1,
        code_version="1",
        rows=1,
        content_hash=content.hex(),
        files=(),
    )
    return write_artifact(store, folder, made)


def make_family(store: ObjectStore, as_of: datetime) -> dict[str, Manifest]:
    graph = make_artifact(store, "graph", as_of, {"lake": "l"}, b"graph %d" % as_of.day)
    rankings = make_artifact(store, "rankings", as_of, {"graph": graph.artifact_id}, b"ranks %d" % as_of.day)
    return {"graph": graph, "rankings": rankings}


def make_release(store: ObjectStore, days: int = 0) -> Release:
    return ReleaseStore(store).make(make_family(store, DAY + timedelta(days=days)))


def test_the_first_release_is_served_and_verifies(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    assert releases.current() is None
    release = make_release(store)
    assert releases.publish(release)
    assert releases.current() == release
    releases.verify(release)


def test_an_older_release_never_replaces_a_newer_one_unless_forced(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    newer, older = make_release(store, days=2), make_release(store, days=1)
    assert releases.publish(newer)
    assert not releases.publish(older)
    assert releases.current_id() == newer.release_id
    assert releases.publish(older, force=True)
    assert releases.current_id() == older.release_id


def test_making_the_same_release_twice_gives_one(store: ObjectStore) -> None:
    assert make_release(store) == make_release(store)
    assert len(ReleaseStore(store).list()) == 1


def test_artifacts_of_different_families_are_refused(store: ObjectStore) -> None:
    family = make_family(store, DAY)
    other = make_artifact(store, "graph", DAY, {"lake": "another"}, b"another")
    with pytest.raises(CorruptArtifact, match="was made from graph"):
        ReleaseStore(store).make({**family, "graph": other})
    with pytest.raises(CorruptArtifact, match="different as-of"):
        ReleaseStore(store).make({**family, "graph": make_family(store, DAY + timedelta(days=1))["graph"]})


def test_rollback_goes_to_the_release_before_and_can_come_back(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    with pytest.raises(PymkError, match="nothing was published"):
        releases.rollback()
    first, second = make_release(store), make_release(store, days=1)
    releases.publish(first)
    with pytest.raises(PymkError, match="no earlier release"):
        releases.rollback()
    releases.publish(second)
    assert releases.rollback() == first
    assert releases.rollback(second.release_id) == second
    with pytest.raises(NotFound, match="no release nonsense"):
        releases.rollback("nonsense")


def test_rollback_to_a_damaged_release_is_refused_and_current_stays(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    releases.publish(first)
    releases.publish(second)
    store.put(f"{first.artifacts['rankings'].path}/part", b"damaged")
    with pytest.raises(CorruptArtifact, match="part has 7 bytes"):
        releases.rollback()
    assert releases.current_id() == second.release_id


@pytest.mark.parametrize("damage", [b"", b"graph 2", b"graph 1 and more"])
def test_a_flipped_truncated_or_longer_file_is_found(store: ObjectStore, damage: bytes) -> None:
    release = make_release(store)
    store.put(f"{release.artifacts['graph'].path}/part", damage)
    with pytest.raises(CorruptArtifact, match=f"has {len(damage)} bytes"):
        open_artifact(store, "graph", release.artifacts["graph"].artifact_id)


def test_a_missing_file_and_a_garbled_manifest_are_found(store: ObjectStore) -> None:
    graph = make_family(store, DAY)["graph"]
    store.delete(f"graph/{graph.artifact_id}/data/part")
    with pytest.raises(CorruptArtifact, match="is missing"):
        open_artifact(store, "graph", graph.artifact_id)
    store.put(f"graph/{graph.artifact_id}/manifest.json", b'{"schema_version": 1')
    with pytest.raises(CorruptArtifact, match="not a manifest"):
        find_manifest(store, "graph", graph.artifact_id)


def test_a_manifest_of_another_version_names_both_numbers(store: ObjectStore) -> None:
    store.put("graph/a/manifest.json", b'{"schema_version": 99}')
    with pytest.raises(CorruptArtifact, match="version 99, this code reads 1"):
        find_manifest(store, "graph", "a")


def test_a_manifest_cannot_name_files_outside_its_artifact(store: ObjectStore) -> None:
    graph = make_family(store, DAY)["graph"]
    key = f"graph/{graph.artifact_id}/manifest.json"
    store.put(key, store.get(key).data.replace(b'"part"', b'"../../part"'))
    with pytest.raises(CorruptArtifact, match="leaves the artifact"):
        find_manifest(store, "graph", graph.artifact_id)


def test_a_second_rollback_goes_further_back_and_never_forward(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    made = [make_release(store, days) for days in range(3)]
    for release in made:
        releases.publish(release)
    assert releases.rollback() == made[1]
    assert releases.rollback() == made[0]
    with pytest.raises(PymkError, match="no earlier release"):
        releases.rollback()


def test_a_withdrawn_release_comes_back_only_by_force_or_by_name(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    good, bad = make_release(store), make_release(store, days=1)
    releases.publish(good)
    releases.publish(bad)
    releases.rollback()
    assert not releases.publish(bad)
    assert releases.current() == good
    assert releases.publish(make_release(store, days=2)), "the next night is served"
    releases.rollback(good.release_id)
    assert releases.publish(bad, force=True)
    assert releases.current() == bad


def test_a_fraction_of_a_second_newer_is_newer(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    older = releases.make(make_family(store, DAY))
    newer = releases.make(make_family(store, DAY + timedelta(milliseconds=500)))
    assert releases.publish(newer)
    assert not releases.publish(older)


def test_clean_never_touches_folders_that_are_no_artifacts(store: ObjectStore) -> None:
    store.put("lake/connections/part-00000.parquet", b"rows")
    store.put("notes/2026/readme", b"text")
    ReleaseStore(store).clean(keep=1, grace_s=0)
    assert store.exists("lake/connections/part-00000.parquet")
    assert store.exists("notes/2026/readme")


def test_clean_keeps_the_newest_current_and_the_one_before(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    made = [make_release(store, days) for days in range(6)]
    for release in made:
        releases.publish(release)
    releases.rollback(made[1].release_id)
    unfinished = make_family(store, DAY + timedelta(days=30))["graph"]
    removed = releases.clean(keep=2)
    assert [r.release_id for r in releases.list()] == [made[i].release_id for i in (0, 1, 4, 5)]
    assert set(removed["releases"]) == {made[i].release_id for i in (2, 3)}
    assert removed["artifacts"] == [], "young artifacts stay: a run may be about to use them"
    for release in releases.list():
        releases.verify(release)
    assert find_manifest(store, "graph", unfinished.artifact_id), "an unfinished run's artifacts stay"
    assert len(releases.clean(keep=2, grace_s=0)["artifacts"]) == 6
    for release in releases.list():
        releases.verify(release)
    assert not find_manifest(store, "graph", unfinished.artifact_id)


MALFORMED = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'"text"',
    b"[" * 100_000,
    b'{"schema_version": 1, "artifacts": []}',
    b'{"schema_version": 1, "artifacts": {}, "parents": []}',
]
"""What is in place of a release."""


def with_values(release: Release, **values: Any) -> bytes:
    return orjson.dumps(orjson.loads(release.to_json()) | values)


def malformed(release: Release) -> list[bytes]:
    entry = orjson.loads(release.to_json())["artifacts"]["graph"]
    return [
        *MALFORMED,
        release.to_json()[:100],
        with_values(release, artifacts=[]),
        with_values(release, artifacts={"graph": None}),
        with_values(release, artifacts={"graph": entry | {"artifact_id": "../.."}}),
        with_values(release, artifacts={"graph": entry | {"rows": "many"}}),
        with_values(release, artifacts={"../..": entry}),
        with_values(release, parents=None),
        with_values(release, as_of=7),
        with_values(release, as_of="soon"),
        with_values(release, as_of="2026-01-01T00:00:00"),
        with_values(release, delta="1"),
        with_values(release, release_id="another"),
        with_values(release, release_id=[]),
        with_values(release, more=1),
    ]


def test_a_file_of_any_other_shape_is_a_corrupt_release_and_the_others_are_listed(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    releases = ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    for content in malformed(second):
        caplog.clear()
        store.put(f"releases/{second.release_id}.json", content)
        with pytest.raises(CorruptArtifact, match=f"{second.release_id}.json: .*elete"):
            releases.get(second.release_id)
        assert releases.list() == [first]
        assert f"{second.release_id}.json" in caplog.text


def test_nothing_is_cleaned_while_nobody_knows_what_a_damaged_release_names(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    made = [make_release(store, days) for days in range(3)]
    for release in made:
        releases.publish(release)
    store.put(f"releases/{made[2].release_id}.json", b"{")
    before = [info.key for info in store.list("")]
    with pytest.raises(CorruptArtifact, match=made[2].release_id):
        releases.clean(keep=1, grace_s=0)
    store.delete(f"releases/{made[2].release_id}.json")
    with pytest.raises(NotFound, match=f"no release {made[2].release_id}"):
        releases.clean(keep=1, grace_s=0)
    assert [i.key for i in store.list("")] == [k for k in before if k != f"releases/{made[2].release_id}.json"]


@pytest.mark.parametrize("name", [".DS_Store", "notes.txt", "copy of.json", "old/20260101T000000Z-0.json", ".json"])
def test_other_files_beside_the_releases_are_left_alone(
    store: ObjectStore, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    releases = ReleaseStore(store)
    release = make_release(store)
    releases.publish(release)
    store.put(f"releases/{name}", b"not ours")
    assert releases.list() == [release]
    assert releases.clean(keep=1, grace_s=0) == {"releases": [], "artifacts": []}
    assert store.exists(f"releases/{name}")
    assert not caplog.records


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
    releases.clean(keep=1)
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


def test_a_data_file_that_may_not_be_read_is_named(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make_release(store)

    open_path = Path.open

    def refuse(path: Path, mode: str) -> Any:
        if path.name == "part":
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"data/part: cannot be read: Permission denied\. Give this user the right"):
        open_artifact(store, "graph", release.artifacts["graph"].artifact_id)
