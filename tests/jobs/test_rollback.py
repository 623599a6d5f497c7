"""Going back: once for each run of a scheduler, never forward, and never to a release with faults."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.audit import deeds
from infra.errors import Conflict, GateRefused, PymkError, StoreError, UsageError
from infra.release_files import Pointer
from infra.release_records import withdrawn_releases
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore, open_store
from jobs.rollback import roll_back
from tests.infra.test_retention import age
from tests.jobs.test_publishing import FAULTY, WORSE, current, make_night, publish
from tests.jobs.test_publishing_deltas import hours, make_delta
from tests.suites.command import pymk_json


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def nights(store: ObjectStore) -> list[Release]:
    made = [make_night(store, day) for day in range(4)]
    for release in made:
        publish(store, release)
    return made


@pytest.fixture
def in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_rollback/manual__1 by ada")


class Cut(ReleaseStore):
    """A store that fails just before or just after CURRENT moved."""

    moves = False

    def rollback(self, to: str | None = None, judged: Pointer | None = None) -> Release:
        if self.moves:
            super().rollback(to, judged)
        raise StoreError("the network is gone")


@pytest.mark.usefixtures("in_a_run")
class TestInARun:
    @pytest.mark.parametrize("moves", [False, True])
    def test_a_task_that_is_tried_again_goes_back_once(
        self, store: ObjectStore, nights: list[Release], moves: bool
    ) -> None:
        failing = Cut(store)
        failing.moves = moves
        with pytest.raises(StoreError):
            roll_back(failing)
        for _ in range(2):
            made = roll_back(ReleaseStore(store))
            assert (made["release_id"], made["published"]) == (nights[2].release_id, True)
            assert current(store) == nights[2].release_id

    def test_a_run_that_is_cleared_later_moves_nothing(self, store: ObjectStore, nights: list[Release]) -> None:
        roll_back(ReleaseStore(store), nights[1].release_id)
        publish(store, newer := make_night(store, 9))
        made = roll_back(ReleaseStore(store), nights[1].release_id)
        assert not made["published"]
        assert f"CURRENT names {newer.release_id} since" in made["said"]
        assert current(store) == newer.release_id

    def test_what_came_between_two_tries_is_left_too(self, store: ObjectStore, nights: list[Release]) -> None:
        with pytest.raises(StoreError):
            roll_back(Cut(store))
        publish(store, make_delta(store, nights[3], hours(nights[3], 1)))
        assert roll_back(ReleaseStore(store))["release_id"] == nights[2].release_id
        assert current(store) == nights[2].release_id

    def test_another_run_goes_back_further(
        self, store: ObjectStore, nights: list[Release], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        roll_back(ReleaseStore(store))
        monkeypatch.setenv("PYMK_RUN_ID", "pymk_rollback/manual__2 by ada")
        assert roll_back(ReleaseStore(store))["release_id"] == nights[1].release_id == current(store)
        assert [deed.result["from"] for deed in deeds(store, "rollback")] == [
            nights[3].release_id,
            nights[2].release_id,
        ]


def test_who_types_it_twice_goes_back_twice(store: ObjectStore, nights: list[Release]) -> None:
    for night in (nights[2], nights[1]):
        made = pymk_json("release", "rollback", f"--store={store.uri}", "--reason=too old")
        assert made == {"release_id": night.release_id, "published": True, "said": f"rolled back to {night.release_id}"}
    assert [(deed.done, deed.reason) for deed in deeds(store)] == [(True, "too old")] * 2


def test_of_two_who_ask_at_once_the_second_is_told(store: ObjectStore, nights: list[Release]) -> None:
    asked_at = datetime.now(UTC) - timedelta(minutes=1)
    with pytest.raises(UsageError, match=f"{nights[3].release_id}, which is served, was made after this was asked for"):
        roll_back(ReleaseStore(store), asked_at=asked_at)
    age(store, "releases/", 3600)
    roll_back(ReleaseStore(store), asked_at=asked_at)
    with pytest.raises(UsageError, match=rf"rolled back to {nights[2].release_id} at .*, after this was asked for"):
        roll_back(ReleaseStore(store), asked_at=asked_at)
    assert current(store) == nights[2].release_id
    assert roll_back(ReleaseStore(store), asked_at=datetime.now(UTC) + timedelta(minutes=1))["published"]
    assert roll_back(ReleaseStore(store), nights[0].release_id, asked_at=asked_at)["published"], "it is named"


def test_an_hour_that_ends_after_its_night_was_withdrawn_is_not_published(
    store: ObjectStore, nights: list[Release]
) -> None:
    roll_back(ReleaseStore(store))
    made = publish(store, make_delta(store, nights[3], hours(nights[3], 1)))
    assert not made["published"]
    assert f"{nights[3].release_id}, which it extends, was withdrawn" in made["said"]
    assert current(store) == nights[2].release_id
    assert publish(store, make_delta(store, nights[2], hours(nights[2], 1)))["published"]


def test_a_night_published_while_another_is_verified_is_not_the_one_to_leave(
    store: ObjectStore, nights: list[Release]
) -> None:
    class Slow(ReleaseStore):
        def verify(self, release: Release) -> None:
            ReleaseStore(store).publish(repaired)

    repaired = make_night(store, 4)
    with pytest.raises(Conflict, match=f"moved from {nights[3].release_id}, and names {repaired.release_id}"):
        roll_back(Slow(store))
    assert current(store) == repaired.release_id
    assert ReleaseStore(store).pointer() == Pointer(repaired.release_id, tuple(n.release_id for n in reversed(nights)))


@pytest.mark.usefixtures("in_a_run")
def test_a_try_that_another_night_stopped_is_not_made_of_that_night(store: ObjectStore, nights: list[Release]) -> None:
    class Overtaken(ReleaseStore):
        def verify(self, release: Release) -> None:
            ReleaseStore(store).publish(repaired)

    repaired = make_night(store, 4)
    with pytest.raises(Conflict):
        roll_back(Overtaken(store))
    with pytest.raises(UsageError, match=f"was to leave {nights[3].release_id}, and {repaired.release_id} of another"):
        roll_back(ReleaseStore(store))
    assert current(store) == repaired.release_id


def test_an_hour_that_comes_while_the_one_before_is_verified_saves_nobody(
    store: ObjectStore, nights: list[Release]
) -> None:
    first, bad, last = (make_delta(store, nights[3], hours(nights[3], hour)) for hour in (1, 2, 3))
    for hour in (first, bad):
        publish(store, hour)

    class Overtaken(ReleaseStore):
        def verify(self, release: Release) -> None:
            ReleaseStore(store).publish(last)

    roll_back(Overtaken(store))
    assert current(store) == first.release_id
    assert not publish(store, bad)["published"]
    assert withdrawn_releases(store) == {bad.release_id, last.release_id}
    roll_back(ReleaseStore(store), nights[2].release_id)
    roll_back(ReleaseStore(store), first.release_id)
    assert nights[3].release_id not in withdrawn_releases(store), "an hour on it is served"


def test_a_whole_night_can_be_left_however_many_hours_are_on_it(store: ObjectStore, nights: list[Release]) -> None:
    for hour in range(1, 26):
        publish(store, last := make_delta(store, nights[3], hours(nights[3], hour)))
    assert roll_back(ReleaseStore(store))["release_id"] != last.release_id
    assert ReleaseStore(store).current().base == nights[3].release_id  # type: ignore[union-attr]
    made = pymk_json("release", "rollback", f"--store={store.uri}", "--night", "--reason=a bad night")
    assert made["release_id"] == nights[2].release_id == current(store)
    assert not publish(store, last)["published"]
    assert roll_back(ReleaseStore(store))["release_id"] == nights[1].release_id


def test_to_go_back_far_forgets_what_is_newer(store: ObjectStore, nights: list[Release]) -> None:
    """Else to go back once more would go forward."""
    for hour in range(1, 4):
        publish(store, make_delta(store, nights[3], hours(nights[3], hour)))
    unremembered = make_night(store, 1, lake="another")
    roll_back(ReleaseStore(store), unremembered.release_id)
    assert roll_back(ReleaseStore(store))["release_id"] == nights[0].release_id


def test_who_takes_a_rollback_back_can_go_back_again(store: ObjectStore, nights: list[Release]) -> None:
    for _ in range(2):
        assert roll_back(ReleaseStore(store))["release_id"] == nights[2].release_id
        assert roll_back(ReleaseStore(store), nights[3].release_id)["published"]
    assert ReleaseStore(store).pointer() == Pointer(nights[3].release_id, tuple(n.release_id for n in nights[2::-1]))


@pytest.mark.parametrize(
    ("day", "error", "said"),
    [(0, GateRefused, "7 rows show an existing friend"), (9, UsageError, "does CURRENT remember it")],
)
def test_nothing_goes_back_to_a_release_with_faults(
    store: ObjectStore, day: int, error: type[PymkError], said: str
) -> None:
    served = make_night(store, 5)
    publish(store, served)
    faulty = make_night(store, day, **FAULTY)
    with pytest.raises(error, match=said):
        roll_back(ReleaseStore(store), faulty.release_id)
    assert current(store) == served.release_id
    assert deeds(store) == []


def test_a_delta_with_faults_is_refused_though_its_night_is_sound(store: ObjectStore, nights: list[Release]) -> None:
    faulty = make_delta(store, nights[1], hours(nights[1], 1), {"faults": {"excluded": 3}})
    with pytest.raises(GateRefused, match="3 rows show a blocked"):
        roll_back(ReleaseStore(store), faulty.release_id)
    assert roll_back(ReleaseStore(store), nights[1].release_id)["published"]


def test_forward_is_only_what_was_served_before(store: ObjectStore, nights: list[Release]) -> None:
    refused = make_night(store, 6, **WORSE)
    with pytest.raises(UsageError, match=r"nor does CURRENT remember it.*pymk release publish"):
        roll_back(ReleaseStore(store), refused.release_id)
    roll_back(ReleaseStore(store), nights[0].release_id)
    assert roll_back(ReleaseStore(store), nights[3].release_id)["published"], "it was withdrawn by mistake"


def test_the_night_below_a_delta_can_be_named_though_it_was_never_served_bare(store: ObjectStore) -> None:
    night = make_night(store, 0)
    publish(store, make_delta(store, night, hours(night, 1)))
    assert roll_back(ReleaseStore(store), night.release_id)["published"]


def test_before_the_first_release_there_is_nothing_to_go_back_to(store: ObjectStore) -> None:
    with pytest.raises(PymkError, match="nothing was published"):
        roll_back(ReleaseStore(store))
