"""Publishing nightlies and deltas in any order: CURRENT goes forward, and nothing that was served is forgotten."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import Manifest, artifact_id, write_artifact
from infra.errors import Conflict, Fenced, GateRefused
from infra.leases import Maker, lease_of, take
from infra.release_files import HISTORY
from infra.releases import Release, ReleaseStore
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from infra.times import format_time
from jobs.publishing import LEASE, publish_release
from tests.jobs.test_publishing import WORSE, make_night

SOUND: dict[str, Any] = {"faults": {}}
Carry = Callable[[Release, datetime], Release]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def make_delta(store: ObjectStore, base: Release, as_of: datetime, metrics: dict[str, Any] = SOUND) -> Release:
    folder, parents = store.scratch(), {"graph": base.artifacts["graph"].artifact_id}
    (folder / "data").mkdir()
    wanted = artifact_id("delta", parents, {}, as_of, "1")
    manifest = Manifest("delta", wanted, format_time(as_of), parents, {}, 1, "1", 1, wanted, (), metrics)
    return ReleaseStore(store).make_delta(base, {"delta": write_artifact(store, folder, manifest)}, as_of)


def carrying(store: ObjectStore) -> Carry:
    return lambda base, as_of: make_delta(store, base, as_of)


def hours(release: Release, count: float) -> datetime:
    return release.time + timedelta(hours=count)


def publish(store: ObjectStore, release: Release, **options: Any) -> dict[str, Any]:
    return publish_release(ReleaseStore(store), release, Settings(), lambda line: None, **options)


def served(store: ObjectStore) -> Release:
    release = ReleaseStore(store).current()
    assert release
    return release


def test_a_night_that_ends_after_later_deltas_carries_them_forward(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    for count in (25, 26):
        assert publish(store, make_delta(store, first, hours(first, count)))["published"]
    seen = list[str | None]()

    def carry(base: Release, as_of: datetime) -> Release:
        seen.append(ReleaseStore(store).current_id())
        return make_delta(store, base, as_of)

    before = served(store)
    made = publish(store, second, carry=carry)
    assert made["published"]
    assert seen == [before.release_id], "what the deltas knew is served until the new delta is"
    now = served(store)
    assert (now.base, now.time) == (second.release_id, before.time)
    assert made["served"] == now.release_id
    assert ReleaseStore(store).rollback() == before
    again = publish(store, second, carry=carry)
    assert not again["published"]
    assert f"withdrawn by a rollback; `pymk release publish {second.release_id} --force`" in again["said"]


def test_a_night_as_new_as_the_deltas_just_replaces_them(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    publish(store, make_delta(store, first, second.time))
    assert publish(store, second)["served"] == second.release_id == served(store).release_id


def test_without_a_way_to_carry_the_deltas_stay_unless_forced(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    delta = make_delta(store, first, hours(first, 25))
    publish(store, delta)
    made = publish(store, second)
    assert not made["published"]
    assert f"what {delta.release_id}, which is served, knows until {delta.as_of} would be lost" in made["said"]
    assert served(store) == delta
    assert publish(store, second, force=True)["published"]
    assert served(store) == second


def test_a_night_that_was_published_and_extended_counts_as_published(store: ObjectStore) -> None:
    night = make_night(store, 0)
    publish(store, night)
    delta = make_delta(store, night, hours(night, 1))
    publish(store, delta)
    made = publish(store, night)
    assert made["published"]
    assert delta.release_id in made["said"]
    assert served(store) == delta
    publish(store, night, force=True, carry=carrying(store))
    assert served(store) == night, "who forces it gets it bare"


def test_a_delta_that_ends_after_the_next_night_is_made_anew_on_that(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    late, later = (make_delta(store, first, hours(second, count)) for count in (1, 2))
    publish(store, second)
    assert not publish(store, late)["published"]
    made = publish(store, late, carry=carrying(store))
    assert made["published"]
    now = served(store)
    assert (now.base, now.time) == (second.release_id, late.time)
    assert publish(store, later, carry=carrying(store))["published"]
    assert served(store).time == later.time
    assert publish(store, late, carry=carrying(store))["published"] is False, "more is known by now"
    assert served(store).time == later.time


def test_a_withdrawn_night_is_not_carried_back(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    publish(store, second)
    ReleaseStore(store).rollback()
    publish(store, make_delta(store, first, hours(second, 1)))
    before = served(store)
    assert not publish(store, second, carry=carrying(store))["published"]
    assert served(store) == before


def test_a_backfilled_night_of_before_changes_nothing(store: ObjectStore) -> None:
    old, first = make_night(store, 0), make_night(store, 5)
    publish(store, first)
    delta = make_delta(store, first, hours(first, 1))
    publish(store, delta)
    for release in (old, make_delta(store, old, hours(old, 3))):
        assert not publish(store, release, carry=carrying(store))["published"]
        assert served(store) == delta


def test_what_is_published_while_one_carries_is_carried_too(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    deltas = [make_delta(store, first, hours(second, count)) for count in (1, 2)]
    ReleaseStore(store).publish(deltas[0])
    rivals = [deltas[1]]

    def carry(base: Release, as_of: datetime) -> Release:
        made = make_delta(store, base, as_of)
        if rivals:
            assert ReleaseStore(store).publish(rivals.pop())
        return made

    assert publish(store, second, carry=carry)["published"]
    assert (served(store).base, served(store).time) == (second.release_id, deltas[1].time)


@pytest.fixture
def twins(store: ObjectStore) -> tuple[Release, Release]:
    """Two nights of one as-of, as one and the week anew are: the first is served, and an hour on it."""
    night = make_night(store, 0)
    publish(store, night)
    publish(store, make_delta(store, night, hours(night, 3)))
    return night, make_night(store, 0, lake="anew")


@pytest.mark.parametrize("force", [False, True])
def test_another_night_of_the_same_time_replaces_the_first_and_keeps_what_its_deltas_knew(
    store: ObjectStore, twins: tuple[Release, Release], force: bool
) -> None:
    _, anew = twins
    before = served(store)
    assert publish(store, anew, carry=carrying(store), force=force)["published"]
    assert (served(store).base, served(store).time) == (anew.release_id, before.time)


def test_another_night_of_the_same_time_is_not_published_bare(
    store: ObjectStore, twins: tuple[Release, Release]
) -> None:
    before = served(store)
    made = publish(store, twins[1])
    assert not made["published"]
    assert "would be lost" in made["said"]
    assert served(store) == before


def test_another_night_of_the_same_time_is_judged_beside_the_first(
    store: ObjectStore, twins: tuple[Release, Release]
) -> None:
    before = served(store)
    with pytest.raises(GateRefused, match="recall"):
        publish(store, make_night(store, 0, lake="worse", **WORSE), carry=carrying(store))
    assert served(store) == before


def test_a_night_that_another_of_its_time_replaced_does_not_come_back(
    store: ObjectStore, twins: tuple[Release, Release]
) -> None:
    """Its task is cleared, or an hour on it ends late: that one is made anew on the other."""
    night, anew = twins
    publish(store, anew, carry=carrying(store))
    for count in range(4, 4 + HISTORY + 3):
        publish(store, make_delta(store, anew, hours(anew, count)))
        before = served(store)
        assert not publish(store, night, carry=carrying(store))["published"]
        assert not publish(store, make_delta(store, night, hours(night, 3.5)), carry=carrying(store))["published"]
        assert not ReleaseStore(store).publish(make_delta(store, night, before.time))
        assert served(store) == before
    late = make_delta(store, night, before.time + timedelta(hours=1))
    assert publish(store, late, carry=carrying(store))["published"]
    assert (served(store).base, served(store).time) == (anew.release_id, late.time)


def test_a_rollback_to_another_night_withdraws_the_night_and_not_just_its_delta(
    store: ObjectStore, twins: tuple[Release, Release]
) -> None:
    night, anew = twins
    publish(store, anew, carry=carrying(store))
    assert ReleaseStore(store).rollback().base == night.release_id
    later = make_delta(store, night, hours(night, 5))
    publish(store, later)
    assert not publish(store, anew, carry=carrying(store))["published"]
    assert served(store) == later
    assert publish(store, anew, carry=carrying(store), force=True)["published"]


def test_the_hours_of_a_night_that_was_forced_are_published(store: ObjectStore) -> None:
    publish(store, make_night(store, 0))
    worse = make_night(store, 1, ann=0.5, **WORSE)
    with pytest.raises(GateRefused):
        publish(store, make_delta(store, worse, hours(worse, 1)))
    publish(store, worse, force=True, reason="a holiday")
    for count in (1, 2):
        assert publish(store, make_delta(store, worse, hours(worse, count)))["published"]


@pytest.mark.parametrize("metrics", [{"faults": {"excluded": 3}}, {}])
def test_nothing_passes_the_faults_of_a_delta(store: ObjectStore, metrics: dict[str, Any]) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    faulty = make_delta(store, first, hours(first, 25), metrics)
    with pytest.raises(GateRefused, match="integrity"):
        publish(store, faulty, force=True)
    publish(store, make_delta(store, first, hours(first, 26)))
    before = served(store)
    with pytest.raises(GateRefused, match="integrity"):
        publish(store, second, carry=lambda base, as_of: make_delta(store, base, as_of, metrics))
    assert served(store) == before


def test_two_publish_one_after_the_other(store: ObjectStore) -> None:
    """The second waits until the first, which is on another machine, is done or silent for too long."""
    first, second = make_night(store, 0), make_night(store, 1)
    other = take(store, LEASE, Maker("other", "far", "", "1"), ttl_s=0.5)
    assert other
    told = list[str]()
    made = publish_release(ReleaseStore(store), second, Settings(), told.append)
    assert made["published"]
    assert "waiting for run other on far" in told[0]
    with pytest.raises(Fenced):
        other.check()
    publish(store, first)
    lease = lease_of(store, LEASE)
    assert lease
    assert [turn.token for turn in lease.turns] == [1, 2, 3]


def test_who_lost_the_lease_publishes_nothing(store: ObjectStore) -> None:
    first, second = make_night(store, 0), make_night(store, 1)
    publish(store, first)
    publish(store, make_delta(store, first, hours(first, 25)))
    before = served(store)

    def carry(base: Release, as_of: datetime) -> Release:
        """Takes so long that another run takes the lease over."""
        lease = lease_of(store, LEASE)
        assert lease
        store.put(f"leases/{LEASE}", lease.passed_to(Maker("b", "far", "", "1"), "n", 60, ()).to_json())
        return make_delta(store, base, as_of)

    with pytest.raises((Fenced, Conflict), match="passed to run b on far"):
        publish(store, second, carry=carry)
    assert served(store) == before
