"""Force is of one try: a task that is tried again or cleared takes nothing away that was published since."""

from pathlib import Path

import pytest

from infra.audit import deeds
from infra.errors import GateRefused, StoreError
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from tests.jobs.test_publishing import WORSE, current, failing, make_night, publish
from tests.jobs.test_publishing_deltas import hours, make_delta, served


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def test_a_task_that_is_tried_again_forces_over_nothing_that_came_since(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first try may have failed just before CURRENT moved, or just after."""
    old, served, newer = make_night(store, 0), make_night(store, 3), make_night(store, 4)
    publish(store, served)
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__1 by ada")
    with monkeypatch.context() as patched:
        patched.setattr(ReleaseStore, "publish", failing)
        with pytest.raises(StoreError):
            publish(store, old, force=True, reason="a repair")
    for _ in range(2):
        assert publish(store, old, force=True, reason="a repair")["published"]
        assert current(store) == old.release_id
    ReleaseStore(store).rollback()
    assert not publish(store, old, force=True, reason="a repair")["published"], "somebody took it back"
    publish(store, newer)
    made = publish(store, old, force=True, reason="a repair")
    assert not made["published"]
    assert "withdrawn by a rollback" in made["said"]
    assert current(store) == newer.release_id
    forced = deeds(store, "forced-publish")
    assert [(deed.done, deed.reason, deed.result["over"]) for deed in forced[:2]] == [
        (False, "a repair", served.release_id),
        (True, "a repair", served.release_id),
    ]
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__2 by ada")
    assert publish(store, old, force=True, reason="again")["published"], "another run says so"


def test_a_cleared_run_that_makes_another_release_forces_nothing_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, served, newer, remade = (make_night(store, day) for day in (1, 3, 4, 0))
    publish(store, served)
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__1 by ada")
    assert publish(store, old, force=True, reason="a repair")["published"]
    publish(store, newer)
    assert not publish(store, remade, force=True, reason="a repair")["published"]
    assert current(store) == newer.release_id


def test_a_cleared_task_passes_no_gate_beside_another_release(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, worse, better = make_night(store, 0), make_night(store, 2, **WORSE), make_night(store, 1)
    publish(store, first)
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__1 by ada")
    with monkeypatch.context() as patched:
        patched.setattr(ReleaseStore, "publish", failing)
        with pytest.raises(StoreError):
            publish(store, worse, force=True, reason="a holiday")
    publish(store, better)
    with pytest.raises(GateRefused, match="recall"):
        publish(store, worse, force=True, reason="a holiday")
    assert current(store) == better.release_id


def test_a_cleared_task_that_forced_takes_no_deltas_away(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    night = make_night(store, 0)
    publish(store, night)
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__1 by ada")
    publish(store, night, force=True)
    delta = make_delta(store, night, hours(night, 1))
    publish(store, delta)
    assert publish(store, night, force=True)["published"]
    assert served(store) == delta
