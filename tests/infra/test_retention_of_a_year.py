"""Nights upon nights, cleaned every day, leave a store of some nights, with what servers and the next night need."""

from contextlib import suppress
from pathlib import Path

import pytest

from infra.artifacts import Manifest, find_manifest
from infra.errors import PymkError
from infra.release_readers import Reading
from infra.releases import Release, ReleaseStore, manifests_of
from infra.store import ObjectStore, open_store
from tests.infra.test_deltas import make_delta
from tests.infra.test_retention import age
from tests.suites.release_family import make_warm

DAY_S = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def serve_for(store: ObjectStore, days: int, keep: int, hourly: int = 0, ages: bool = True) -> int:
    """A nightly a day, two deltas on it, each published, a clean a day, a rollback a month. Returns the most objects.

    Nights start from the encoder of the last month's first night, which is trained from scratch. hourly: every so many
    days there is a delta an hour, 0 for never. A reader opens a release and has it for four days, as a server does that
    cannot open a newer one. ages: a day passes between cleanings, which leave what is younger; of a folder.
    """
    releases, most = ReleaseStore(store), 0
    reader: tuple[Release, Reading] | None = None
    start: Manifest | None = None
    for day in range(days):
        encoder, night = make_warm(store, day, start if day % 30 else None)
        start = start if start and day % 30 else encoder
        assert releases.publish(night), day
        for hour in range(1, 24 if hourly and day % hourly == 0 else 3):
            assert releases.publish(make_delta(store, night, hour)), (day, hour)
        if day % 4 == 0:
            if reader:
                reader[1].end()
            current = releases.current()
            assert current
            reader = (current, Reading(store, current.release_id))
        if day % 30 == 29:
            releases.rollback()
        needed = rollback_targets(releases)
        assert len(needed) == min(day + 1, 2), "the release before, and one of another night"
        releases.clean(keep=keep, grace_s=DAY_S if ages else 0)
        for release_id in {*needed, *([reader[0].release_id] if reader else [])}:
            manifests_of(releases.store, releases.get(release_id))
        assert rollback_targets(releases) == needed
        check_what_is_needed(releases, start)
        most = max(most, sum(1 for _ in store.list("")))
        if ages:
            for folder in store.folders(""):
                age(store, f"{folder}/", DAY_S if folder != "readers" else 0)
    return most


def rollback_targets(releases: ReleaseStore) -> set[str]:
    """The release that a rollback goes to, and the one that it goes to from the whole night."""
    found = set()
    for leaving_night in (False, True):
        with suppress(PymkError):
            found.add(releases.before(releases.pointer(), leaving_night=leaving_night))
    return found


def check_what_is_needed(releases: ReleaseStore, start: Manifest) -> None:
    assert releases.current()
    for release in releases.list():
        assert set(manifests_of(releases.store, release)) >= {"graph", "encoder", "rankings"}
    assert find_manifest(releases.store, "encoder", start.artifact_id), "tomorrow starts from it"
    assert find_manifest(releases.store, "graph", start.parents["graph"])


def test_two_months_of_nights_leave_a_store_of_some_nights(store: ObjectStore) -> None:
    assert serve_for(store, 60, keep=3) < 120
    files = [path for path in Path(store.uri).rglob("*") if path.is_file()]
    assert len(files) < 120, "nothing hidden is left either"


def test_the_same_in_a_bucket(s3_bucket: str) -> None:
    assert serve_for(open_store(f"s3://{s3_bucket}/store", writable=True), 8, keep=3, ages=False) < 120


@pytest.mark.slow
def test_a_year_of_nights_is_no_more(store: ObjectStore) -> None:
    assert serve_for(store, 365, keep=7, hourly=4) < 300
    files = [path for path in Path(store.uri).rglob("*") if path.is_file()]
    assert len(files) < 300
