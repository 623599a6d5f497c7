"""What cleaning removes, and what it never does."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import artifact_id
from infra.errors import NotFound
from infra.leases import Maker, key_of, lease_of, take, touch
from infra.process_life import this_process
from infra.release_readers import STALE_S, Reading, open_releases, reading
from infra.releases import Release, ReleaseStore
from infra.retention import store_time
from infra.store import ObjectStore, open_store
from tests.infra.test_deltas import make_delta
from tests.suites.release_family import DAY, make_artifact, make_release, make_warm

FAR = Maker("run", "far", "", "1")
"""One of whom this machine cannot tell whether it lives."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def ids(releases: list[Release]) -> list[str]:
    return [release.release_id for release in releases]


def age(store: ObjectStore, prefix: str, by_s: float) -> None:
    """Makes the objects older than they are. Of a folder."""
    for info in store.list(prefix):
        os.utime(store.open_local(info.key), (info.modified_s - by_s,) * 2)


def test_deltas_take_no_place_of_a_nightly_and_keep_their_base(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    nights = [make_release(store, day) for day in range(4)]
    deltas = [make_delta(store, night, hour) for night in nights for hour in (1, 2, 3)]
    releases.publish(nights[3])
    releases.clean(keep=2, grace_s=0)
    assert ids(releases.list()) == ids([nights[2], nights[3], *deltas[-2:]])
    for release in releases.list():
        releases.verify(release)
    assert len(store.folders("delta/")) == 2


def test_what_a_rollback_goes_to_stays_though_it_is_old(store: ObjectStore) -> None:
    """From a delta that is the delta before, and the nightly before for `--to`."""
    releases = ReleaseStore(store)
    nights = [make_release(store, day) for day in range(5)]
    deltas = [make_delta(store, nights[1], hour) for hour in (1, 2, 3)]
    for release in (nights[0], nights[1], *deltas):
        releases.publish(release)
    releases.clean(keep=1, grace_s=0)
    assert ids(releases.list()) == ids([nights[0], nights[1], deltas[1], deltas[2], nights[4]])
    assert releases.rollback() == deltas[1]
    assert releases.rollback(nights[0].release_id) == nights[0]


def test_a_rollback_passes_over_releases_that_are_gone(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    nights = [make_release(store, day) for day in range(4)]
    for night in nights:
        releases.publish(night)
    store.delete(f"releases/{nights[2].release_id}.json")
    assert releases.rollback() == nights[1]


class TestWarmStarts:
    """Encoders that kept ones were started from, one from another, are there for the next night with their graphs."""

    def test_they_stay_as_long_as_a_kept_encoder_descends_from_them(self, store: ObjectStore) -> None:
        releases = ReleaseStore(store)
        first, _ = make_warm(store, 0, None)
        second, _ = make_warm(store, 1, first)
        for day in range(2, 9):
            releases.publish(make_warm(store, day, second)[1])
            releases.clean(keep=2, grace_s=0)
        kept = {one.artifact_id for one in (first, second)}
        assert kept <= set(store.folders("encoder/"))
        assert {one.parents["graph"] for one in (first, second)} <= set(store.folders("graph/"))
        assert len(store.folders("encoder/")) == len(store.folders("graph/")) == 4
        for day in (9, 10):
            releases.publish(make_warm(store, day, None)[1])
        releases.clean(keep=1, grace_s=0)  # and the one before, which a rollback goes to
        assert not kept & set(store.folders("encoder/")), "nothing that is kept descends from them any more"

    def test_they_stay_while_an_encoder_is_made_from_them(self, store: ObjectStore) -> None:
        first, _ = make_warm(store, 0, None)
        second, _ = make_warm(store, 1, first)
        for release in ReleaseStore(store).list():
            store.delete(f"releases/{release.release_id}.json")
        wanted = artifact_id("encoder", {"warm_start": second.artifact_id}, {}, DAY, "1")
        assert take(store, f"encoder/{wanted}", FAR, uses=(f"encoder/{second.artifact_id}",))
        ReleaseStore(store).clean(keep=1, grace_s=0)
        assert set(store.folders("encoder/")) == {first.artifact_id, second.artifact_id}
        assert set(store.folders("graph/")) == {first.parents["graph"], second.parents["graph"]}

    def test_a_damaged_one_stops_no_cleaning(self, store: ObjectStore) -> None:
        first, release = make_warm(store, 0, None)
        ReleaseStore(store).publish(release)
        store.put(f"encoder/{first.artifact_id}/manifest.json", b"{")
        old = make_artifact(store, "graph", DAY, {"lake": "x"}, b"old")
        assert ReleaseStore(store).clean(keep=1, grace_s=0)["artifacts"] == [f"graph/{old.artifact_id}"]


class TestReaders:
    def test_what_somebody_has_open_stays_with_its_base_until_they_close_it(self, store: ObjectStore) -> None:
        releases = ReleaseStore(store)
        nights = [make_release(store, day) for day in range(3)]
        delta = make_delta(store, nights[0], 1)
        releases.publish(nights[2])
        with reading(store, delta.release_id):
            releases.clean(keep=1, grace_s=0)
            assert ids(releases.list()) == ids([nights[0], delta, nights[2]])
            releases.verify(delta)
        releases.clean(keep=1, grace_s=0)
        assert releases.list() == [nights[2]]
        assert not list(store.list("readers/"))

    def test_a_reader_of_another_machine_counts_until_it_is_silent(self, store: ObjectStore) -> None:
        store.put("readers/some/one", b"another machine/1/2")
        assert open_releases(store, store_time(store)) == {"some"}
        assert open_releases(store, store_time(store) + STALE_S) == set()
        assert not list(store.list("readers/"))

    def test_a_killed_reader_of_this_machine_keeps_nothing(self, store: ObjectStore) -> None:
        code = (
            "import os, sys\nfrom infra.release_readers import Reading\nfrom infra.store import open_store\n"
            "Reading(open_store(sys.argv[1]), 'some')\nos._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", code, store.uri], check=False).returncode == 9
        assert len(list(store.list("readers/"))) == 1
        assert open_releases(store, store_time(store)) == set()

    def test_a_sign_of_life_is_given_every_minute(self, store: ObjectStore) -> None:
        now = [0.0]
        one = Reading(store, "some", clock=lambda: now[0])
        (info,) = store.list("readers/")
        age(store, "readers/", 1000)
        for now[0], renewed in ((59.0, False), (60.0, True)):
            one.renew()
            (found,) = store.list("readers/")
            assert (found.modified_s > info.modified_s - 500) is renewed

    def test_who_may_not_write_reads_all_the_same(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> str:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(store, "put", refuse)
        with reading(store, "some"):
            pass


class TestLeases:
    def test_what_is_being_made_and_what_it_is_made_from_stay(self, store: ObjectStore) -> None:
        releases = ReleaseStore(store)
        releases.publish(make_release(store))
        old = make_artifact(store, "graph", DAY - timedelta(days=9), {"lake": "x"}, b"old")
        other = make_artifact(store, "graph", DAY - timedelta(days=8), {"lake": "x"}, b"other")
        wanted = artifact_id("encoder", {}, {}, DAY, "1")
        store.put(f"encoder/{wanted}/data/half", b"half")
        lease = take(store, f"encoder/{wanted}", FAR, uses=(f"graph/{old.artifact_id}",))
        assert lease
        assert releases.clean(keep=1, grace_s=0)["artifacts"] == [f"graph/{other.artifact_id}"]
        lease.check()
        age(store, "leases/", 301)
        gone = [f"encoder/{wanted}", f"graph/{old.artifact_id}"]
        assert releases.clean(keep=1, grace_s=0)["artifacts"] == gone, "a dead lease holds nothing"
        assert lease_of(store, gone[0]) is None

    def test_a_killed_maker_of_this_machine_holds_nothing(self, store: ObjectStore) -> None:
        machine, pid, started = this_process().split("/")
        dead = Maker("run", "here", f"{machine}/{pid}/{int(started) - 1}", "1")
        graph = make_artifact(store, "graph", DAY, {"lake": "x"}, b"x")
        assert take(store, f"graph/{graph.artifact_id}", dead)
        assert ReleaseStore(store).clean(keep=1, grace_s=0)["artifacts"] == [f"graph/{graph.artifact_id}"]

    def test_what_a_run_found_today_stays_today(self, store: ObjectStore) -> None:
        graph = make_artifact(store, "graph", DAY, {"lake": "x"}, b"x")
        name, releases = f"graph/{graph.artifact_id}", ReleaseStore(store)
        for lease in ("none", "old"):
            age(store, "", 90_000)
            touch(store, name)
            assert releases.clean(keep=1)["artifacts"] == [], f"{lease} lease"
        before = store.get(key_of(name)).etag
        touch(store, name)
        assert store.get(key_of(name)).etag == before, "once an hour is enough"
        age(store, "", 90_000)
        assert releases.clean(keep=1)["artifacts"] == [name]
        assert lease_of(store, name) is None

    def test_the_lease_of_what_was_never_finished_goes_in_time(self, store: ObjectStore) -> None:
        name = f"graph/{artifact_id('graph', {}, {}, DAY, '1')}"
        for held in (name, "publish"):
            lease = take(store, held, FAR)
            assert lease
            with lease:
                pass
        ReleaseStore(store).clean(keep=1)
        assert lease_of(store, name)
        age(store, "", 90_000)
        ReleaseStore(store).clean(keep=1)
        assert lease_of(store, name) is None
        assert lease_of(store, "publish"), "tokens of publishing go on"


class Meanwhile(ReleaseStore):
    """Somebody moves CURRENT to a release while it is being removed."""

    to: Release | None = None

    def _remove(self, release: Release) -> bool:
        if self.to and release.release_id == self.to.release_id:
            assert ReleaseStore(self.store).publish(self.to, force=True)
        return super()._remove(release)


def test_a_release_that_is_published_while_it_is_cleaned_away_stays(store: ObjectStore) -> None:
    nights = [make_release(store, day) for day in range(4)]
    releases = Meanwhile(store)
    releases.publish(nights[3])
    releases.to = nights[0]
    releases.clean(keep=1, grace_s=0)
    assert releases.current() == nights[0]
    for release in releases.list():
        releases.verify(release)


def test_who_publishes_what_was_cleaned_away_just_now_puts_current_back(store: ObjectStore) -> None:
    nights = [make_release(store, day) for day in range(3)]
    releases = ReleaseStore(store)
    releases.publish(nights[1])
    releases.publish(nights[2])
    before = store.get("CURRENT").data
    store.delete(f"releases/{nights[0].release_id}.json")
    with pytest.raises(NotFound, match="was removed meanwhile"):
        releases.publish(nights[0], force=True)
    assert store.get("CURRENT").data == before
