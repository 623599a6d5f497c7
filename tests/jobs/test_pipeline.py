"""The whole path on a small generated network, through real Spark, torch, FAISS and XGBoost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import CorruptArtifact, InputError, PymkError, UsageError
from infra.releases import ReleaseStore
from infra.store import open_store
from infra.times import parse_as_of
from jobs.stages import STAGES
from tests.conftest import SmallRelease, small_pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def hashes(store: str) -> dict[str, str]:
    release = ReleaseStore(open_store(store)).current()
    assert release is not None
    return {kind: entry.content_hash for kind, entry in release.artifacts.items()}


def test_a_run_publishes_a_release_of_every_kind_that_verifies(small_release: SmallRelease) -> None:
    releases = ReleaseStore(open_store(small_release.store))
    current = releases.current()
    assert current is not None
    assert set(current.artifacts) == {stage.kind for stage in STAGES}
    releases.verify(current)


def test_an_artifact_folder_holds_its_data_and_its_manifest_only(small_release: SmallRelease) -> None:
    for stage in STAGES:
        for artifact in (Path(small_release.store) / stage.kind).iterdir():
            assert sorted(p.name for p in artifact.iterdir()) == ["data", "manifest.json"]
            manifest = json.loads((artifact / "manifest.json").read_text())
            assert manifest["cost"]["wall_s"] > 0
            assert {f["path"] for f in manifest["files"]} == {
                p.relative_to(artifact / "data").as_posix() for p in (artifact / "data").rglob("*") if p.is_file()
            }


def test_a_finished_stage_is_found_and_not_done_again(small_release: SmallRelease, spark: "SparkSession") -> None:
    with small_pipeline(small_release.lake, small_release.store, spark) as pipeline:
        made = pipeline.run()
    assert all(stage["found"] for stage in made["stages"].values())
    assert made["published"]


def test_a_damaged_artifact_is_found_out_and_made_again(small_release: SmallRelease, spark: "SparkSession") -> None:
    before = hashes(small_release.store)
    with small_pipeline(small_release.lake, small_release.store, spark) as pipeline:
        path = Path(small_release.store) / "ranker" / pipeline.artifact_id("ranker") / "data" / "ranker.json"
        path.write_bytes(path.read_bytes()[:-100])
        made = pipeline.run()
    assert [name for name, stage in made["stages"].items() if not stage["found"]] == ["train_ranker"]
    assert hashes(small_release.store) == before


def test_the_same_lake_on_s3_gives_the_same_content(
    small_release: SmallRelease, spark: "SparkSession", s3_bucket: str, tmp_path: Path
) -> None:
    lake = open_store(f"s3://{s3_bucket}/lake")
    for path in Path(small_release.lake).rglob("*.parquet"):
        lake.upload(path, path.relative_to(small_release.lake).as_posix())
    with small_pipeline(lake.uri, f"s3://{s3_bucket}/store", spark) as pipeline:
        made = pipeline.run()
    assert made["published"]
    assert hashes(f"s3://{s3_bucket}/store") == hashes(small_release.store)
    releases = ReleaseStore(open_store(f"s3://{s3_bucket}/store"))
    current = releases.current()
    assert current is not None
    releases.verify(current)


def test_a_stage_whose_parent_is_missing_says_which_to_run(
    small_release: SmallRelease, spark: "SparkSession", tmp_path: Path
) -> None:
    with small_pipeline(small_release.lake, str(tmp_path), spark) as pipeline:
        pipeline.graph_id = "20260101T000000Z-0000000000000000"
        with pytest.raises(PymkError, match=r"graph/20260101T000000Z-0{16} is not finished.*pymk stage build_graph"):
            pipeline.run(first="train_encoder")


def test_a_setting_changes_only_what_comes_after_it(small_release: SmallRelease, spark: "SparkSession") -> None:
    one = small_pipeline(small_release.lake, small_release.store, spark)
    other = small_pipeline(small_release.lake, small_release.store, spark, {"ranker.trees": "7"})
    changed = {s.kind for s in STAGES if one.artifact_id(s.kind) != other.artifact_id(s.kind)}
    assert changed == {"ranker", "rankings", "serving_tables", "report"}


def test_an_unknown_stage_and_an_empty_range_are_refused(small_release: SmallRelease, spark: "SparkSession") -> None:
    with small_pipeline(small_release.lake, small_release.store, spark) as pipeline:
        with pytest.raises(UsageError, match="'trainn': no such stage"):
            pipeline.run(first="trainn")
        with pytest.raises(UsageError, match="comes after"):
            pipeline.run(first="rank", until="embed")


def test_an_older_as_of_leaves_current_where_it_is(small_release: SmallRelease, late_eve: dict[str, Any]) -> None:
    assert not late_eve["published"]
    current = ReleaseStore(open_store(small_release.store)).current()
    assert current is not None
    assert current.as_of.startswith(small_release.as_of)
    assert not any(stage["found"] for stage in late_eve["stages"].values())


def test_a_damaged_current_stops_a_publish_and_a_forced_one_replaces_it(
    small_release: SmallRelease, spark: "SparkSession"
) -> None:
    current = Path(small_release.store) / "CURRENT"
    before = current.read_bytes()
    with small_pipeline(small_release.lake, small_release.store, spark) as pipeline:
        release_id = pipeline.publish(force=True)["release_id"]
        current.write_bytes(before[:20])
        with pytest.raises(CorruptArtifact, match=r"CURRENT.*`pymk release publish ID --force`"):
            pipeline.publish()
        assert pipeline.publish(force=True)["published"]
    assert ReleaseStore(open_store(small_release.store)).current_id() == release_id
    current.write_bytes(before)


KILLS = [pytest.param(2), pytest.param(20, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_run_goes_on_from_its_finished_stages(small_release: SmallRelease, tmp_path: Path, kills: int) -> None:
    store = tmp_path / "store"
    store.mkdir()
    chance = random.Random(20260101)
    command = [sys.executable, "-m", "jobs.cli", "run", "--json", f"--lake={small_release.lake}", f"--store={store}"]
    command += [f"--as-of={small_release.as_of}", *(f"--set={k}={v}" for k, v in small_release.flags.items())]
    finished: set[Path] = set()
    for _ in range(kills):
        run_and_kill(command, after_s=chance.uniform(3, 25))
        manifests = set(store.glob("*/*/manifest.json"))
        assert finished <= manifests, "a kill never takes a finished stage away"
        finished = manifests
        verify_current(store)
    done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert {name for name, stage in done["stages"].items() if stage["found"]} >= {
        stage.name for stage in STAGES if any(p.parts[-3] == stage.kind for p in finished)
    }
    assert hashes(str(store)) == hashes(small_release.store)


def run_and_kill(command: list[str], after_s: float) -> None:
    """Ends the whole process group with SIGKILL after some seconds, unless it ends first."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + after_s
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def verify_current(store: Path) -> None:
    releases = ReleaseStore(open_store(str(store)))
    current = releases.current()
    if current is not None:
        releases.verify(current)


def test_the_as_of_is_a_date_or_a_time_with_an_offset() -> None:
    assert parse_as_of("2026-01-01") == parse_as_of("2026-01-01T02:00:00+02:00")
    for text in ("2026-13-01", "yesterday", "2026-01-01T00:00:00", ""):
        with pytest.raises(UsageError, match="RFC 3339"):
            parse_as_of(text)


def test_a_lake_that_changes_while_it_is_read_is_refused(spark: "SparkSession", tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    (lake / "connections").mkdir(parents=True)
    first = pa.table({"user_id": [1, 2, 3], "other_id": [2, 3, 4]})
    pq.write_table(first, lake / "connections" / "a.parquet")
    store = tmp_path / "store"
    with small_pipeline(str(lake), str(store), spark) as pipeline:
        assert pipeline._lake_fingerprint
        pq.write_table(first, lake / "connections" / "b.parquet")
        with pytest.raises(InputError, match="changed while it was read"):
            pipeline.run(until="build_graph")
    assert not list(store.glob("graph/*"))
