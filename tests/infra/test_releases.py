"""Releases: which one is served, which are found, and which are cleaned away."""

from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from infra.artifacts import find_manifest
from infra.errors import CorruptArtifact, NotFound, PymkError
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore, open_store
from tests.infra.test_deltas import make_delta
from tests.infra.test_retention import age
from tests.suites.release_family import DAY, make_artifact, make_family, make_release, with_values


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


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


def test_clean_keeps_what_a_run_may_be_about_to_publish(store: ObjectStore) -> None:
    """As of long ago, as a backfill makes it, and with the base of a delta."""
    releases = ReleaseStore(store)
    served = [make_release(store, days) for days in (20, 21)]
    for release in served:
        releases.publish(release)
    old, base = make_release(store), make_release(store, days=1)
    age(store, "releases/", 90_000)
    young = [make_release(store, days=2), make_delta(store, base, 1)]
    assert releases.clean(keep=1)["releases"] == [old.release_id]
    assert {r.release_id for r in releases.list()} == {r.release_id for r in (*served, *young, base)}


def test_clean_keeps_the_newest_current_and_the_one_before(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    made = [make_release(store, days) for days in range(6)]
    for release in made:
        releases.publish(release)
    releases.rollback(made[1].release_id)
    unfinished = make_family(store, DAY + timedelta(days=30))["graph"]
    age(store, "releases/", 90_000)
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
