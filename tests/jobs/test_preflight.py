"""A night does not start on inputs that are missing, half there or suddenly small, nor where it has no room."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import InputError
from infra.releases import ReleaseStore
from infra.settings import GateSettings, Settings
from infra.store import open_store
from jobs import preflight
from jobs.preflight import (
    Before,
    Estimate,
    Preflight,
    check,
    disk_short,
    estimated,
    memory_short,
    refuse,
    release_before,
    shrunk,
)
from tests.conftest import SmallRelease
from tests.jobs.test_publishing import make_night

NIGHT = datetime(2026, 2, 1, tzinfo=UTC)
MIB = 2**20


def obstacles(lake: Path, store: str, settings: Settings | None = None) -> list[str]:
    return [str(one) for one in check(str(lake), store, NIGHT, settings or Settings()).obstacles if one.refuses]


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for the night that is estimated, whatever else runs on this machine."""
    monkeypatch.setattr(preflight, "available_memory", lambda: (1 << 50, 1 << 50))


@pytest.fixture
def lake(small_release: SmallRelease, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_release.lake, tmp_path / "lake"))


def test_a_good_lake_is_counted_and_estimated_by_the_release_before(small_release: SmallRelease, lake: Path) -> None:
    found = check(str(lake), small_release.store, NIGHT, Settings())
    assert found.obstacles == ()
    assert found.rows["profiles"] == sum(pq.read_metadata(file).num_rows for file in lake.glob("profiles/*"))
    assert found.before is not None
    assert found.before.rows == found.rows
    costs = [manifest.cost["wall_s"] for manifest in found.before.manifests.values()]
    assert found.estimate.wall_s == pytest.approx(sum(costs), abs=0.1)
    assert json.loads(json.dumps(found.as_dict()))["estimate"]["measured"] is True


def test_the_first_night_and_a_backfill_before_all_have_nothing_to_be_held_against(
    small_release: SmallRelease, lake: Path, tmp_path: Path
) -> None:
    assert check(str(lake), str(tmp_path / "none"), NIGHT, Settings()).before is None
    assert not (tmp_path / "none").exists()
    assert check(str(lake), small_release.store, datetime(2025, 6, 1, tzinfo=UTC), Settings()).before is None


def test_a_night_is_held_against_the_newest_release_that_was_served_and_is_whole(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    releases, nights = ReleaseStore(store), [make_night(store, day) for day in range(5)]
    for night in (*nights[:3], nights[4]):
        assert releases.publish(night)
    releases.rollback()  # of the newest two one was never served, and the other was withdrawn
    before, warnings = release_before(store.uri, NIGHT)
    assert before is not None
    assert (before.release_id, warnings) == (nights[2].release_id, [])
    assert release_before(store.uri, nights[1].time)[0] == Before(nights[0].release_id, ANY)

    store.delete_folder(f"index/{nights[2].artifacts['index'].artifact_id}/")
    before, (warning,) = release_before(store.uri, NIGHT)
    assert before is not None
    assert before.release_id == nights[1].release_id
    assert f"release {nights[2].release_id} cannot be compared with" in warning.detail
    assert not warning.refuses


def test_a_release_that_only_a_later_one_remembers_as_served_counts(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    first = make_night(store, 0)
    ReleaseStore(store).publish(first)
    make_night(store, 1)
    store.delete("CURRENT")
    assert release_before(store.uri, NIGHT)[0] == Before(first.release_id, ANY)


def test_a_table_that_came_in_part_stops_the_night(small_release: SmallRelease, lake: Path) -> None:
    (file,) = lake.glob("affiliations/*")
    rows = pq.read_table(file)
    pq.write_table(rows.slice(0, rows.num_rows // 2), file)
    (found,) = obstacles(lake, small_release.store)
    assert f"affiliations has {rows.num_rows // 2:,} rows, {rows.num_rows:,} in release" in found
    assert obstacles(lake, small_release.store, Settings(gates=GateSettings(min_rows_share=0.4))) == []


def test_a_table_that_is_gone_stops_the_night(small_release: SmallRelease, lake: Path) -> None:
    shutil.rmtree(lake / "blocks")
    assert obstacles(lake, small_release.store)[0].startswith("inputs: blocks has 0 rows")


def test_a_file_cut_short_a_writer_at_work_and_an_empty_table_stop_the_night(lake: Path, tmp_path: Path) -> None:
    (file,) = lake.glob("profiles/*")
    file.write_bytes(file.read_bytes()[:-100])
    (lake / "blocks" / "_temporary" / "0").mkdir(parents=True)
    (lake / "blocks" / "_temporary" / "0" / "part").touch()
    found = obstacles(lake, str(tmp_path / "none"))
    assert any(str(file) in one for one in found)
    assert any("holds _temporary" in one for one in found)
    (edges,) = lake.glob("connections/*")
    pq.write_table(pa.table({"user_id": pa.array([], pa.int64()), "other_id": pa.array([], pa.int64())}), edges)
    shutil.rmtree(lake / "profiles")
    assert any("connections has no row" in one for one in obstacles(lake, str(tmp_path / "none")))


def test_an_estimate_follows_the_lake_as_it_grows() -> None:
    cost = {"wall_s": 100.0, "peak_memory_bytes": 1000 * MIB}
    graph = SimpleNamespace(metrics={"lake_rows": {"connections": 100}}, cost=cost, size_bytes=10 * MIB)
    before = Before("R", {"graph": graph})  # type: ignore[dict-item]
    assert estimated({"connections": 200}, before) == Estimate(200.0, 2000 * MIB, 20 * MIB, True)
    assert list(shrunk({"connections": 70}, before, 0.7)) == []
    known = estimated({"connections": 3_715_116, "profiles": 194_839}, None)
    assert known.wall_s == pytest.approx(26 * 60, rel=0.2), "docs/performance.md: 26 minutes"
    assert known.memory_bytes == pytest.approx(4.77 * 2**30, rel=0.2), "docs/performance.md: 4.7 GiB"


@pytest.mark.parametrize(("needed", "refuses"), [(3, []), (5, [False]), (9, [True])])
@pytest.mark.parametrize("measured", [True, False])
def test_memory_refuses_what_can_never_fit_and_warns_of_what_does_not_fit_beside_other_runs(
    needed: int, refuses: list[bool], measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "available_memory", lambda: (4 * 2**30, 8 * 2**30))
    found = memory_short(Estimate(1.0, needed * 2**30, 0, measured))
    assert [one.refuses for one in found] == refuses


def test_a_disk_without_room_stops_the_night(tmp_path: Path) -> None:
    endless = Estimate(1.0, 0, 2**60, True)
    for store in (f"{tmp_path}/not/there/yet", f"file://{tmp_path}"):
        kept, _ = disk_short(endless, store)
        assert f"for the store, in {tmp_path}" in kept.detail
    kept, _ = disk_short(endless, "s3://bucket/store")
    assert "for copies of the store's artifacts" in kept.detail
    assert list(disk_short(replace(endless, disk_bytes=0), str(tmp_path))) == []


def test_all_obstacles_are_named_at_once_with_their_fixes() -> None:
    one = preflight.Obstacle("disk", "no room", "Free some.")
    other = preflight.Obstacle("inputs", "half", "Wait.")
    estimate = Estimate(0, 0, 0, False)
    with pytest.raises(InputError, match=r"does not start: disk: no room; inputs: half\. Free some\. Wait\."):
        refuse(Preflight({}, None, estimate, (one, replace(one, refuses=False), other)))
    refuse(Preflight({}, None, estimate, (replace(one, refuses=False),)))
