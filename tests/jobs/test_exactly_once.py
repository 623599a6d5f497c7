"""Whatever runs at once and is killed: a stage is done once, as in a quiet run, and CURRENT goes forward."""

import random
import shutil
import signal
import subprocess
import time
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.artifacts import find_manifest
from infra.leases import MADE, lease_of
from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.sample import generate
from jobs.stages import STAGES
from tests.conftest import SmallRelease, small_pipeline
from tests.suites.backfill import Backfill, content_hashes, pymk_run
from tests.suites.frozen import freeze

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

USERS, DAYS = 2000, 7
LENIENT = {
    "gates.max_recall_drop": "1",
    "gates.min_against_heuristics": "0",
    "gates.max_shown_drop": "1",
    "gates.max_gini_rise": "1",
    "gates.max_input_change": "1000",
    "gates.max_degree_shift": "1000",
    "gates.max_score_shift": "1000",
}
"""Nights of a small sample differ by chance; what is tested here is not their quality."""


@pytest.fixture
def begun(small_release: SmallRelease, tmp_path: Path) -> Path:
    """A store that has the graph of the small release and nothing else."""
    store = tmp_path / "store"
    shutil.copytree(Path(small_release.store) / "graph", store / "graph")
    return store


def commands(release: SmallRelease, store: Path, count: int) -> list[list[str]]:
    flags = release.flags | {"store.lease_s": "5"}
    return [pymk_run(release.lake, store, release.as_of, flags, "--from=train_encoder", "--until=embed")] * count


def made_once(store: Path, backfill: Backfill) -> None:
    """Every finished artifact was finished by one run, and nobody else says that it made it."""
    opened = open_store(str(store))
    for path in backfill.manifests:
        name = "/".join(path.parts[-3:-1])
        lease = lease_of(opened, name)
        turns = [turn for turn in lease.turns if turn.state == MADE] if lease else []
        assert len(turns) <= 1, f"{name} was made by {[turn.maker.run_id for turn in turns]}"
        assert backfill.made[name] <= 1
        assert find_manifest(opened, *name.split("/"))


def test_three_runs_of_one_night_share_its_stages_though_some_are_killed(
    small_release: SmallRelease, begun: Path
) -> None:
    summaries = {stage.summary for stage in STAGES if stage.name in ("train_encoder", "embed")}
    backfill = Backfill(begun, kill_at=summaries)
    backfill.run(commands(small_release, begun, 3))
    assert len(backfill.answers) == 3
    assert backfill.kills
    assert {path.parts[-3] for path in backfill.manifests} > {"encoder", "embeddings"}
    made_once(begun, backfill)
    release = ReleaseStore(open_store(small_release.store)).current()
    assert release
    for answer in backfill.answers:
        for stage in answer["stages"].values():
            assert stage["content_hash"] == release.artifacts[stage["kind"]].content_hash


def test_a_run_that_stood_still_too_long_finds_what_its_successor_made(
    small_release: SmallRelease, begun: Path, tmp_path: Path
) -> None:
    """A frozen machine: the other takes over after the lease's time, and the first writes nothing when it wakes."""
    command = commands(small_release, begun, 1)[0]
    told = tmp_path / "told"
    with told.open("w") as stream:
        frozen = subprocess.Popen([*command, "--set=store.lease_s=2"], stdout=subprocess.DEVNULL, stderr=stream)
    while "train_encoder: " not in told.read_text():
        time.sleep(0.02)
        assert frozen.poll() is None, told.read_text()
    freeze(frozen)
    backfill = Backfill(begun)
    backfill.run([command])
    assert sum(backfill.made.values()) == 2
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait() in (0, 1)
    backfill._see()
    made_once(begun, backfill)
    (encoder,) = (begun / "encoder").iterdir()
    lease = lease_of(open_store(str(begun)), f"encoder/{encoder.name}")
    assert lease
    assert [turn.token for turn in lease.turns] == [1, 2]
    assert [turn.state for turn in lease.turns] == ["lost", MADE]


def kill_some(chance: random.Random) -> float | None:
    """Half of the runs, at any time of a run."""
    return chance.uniform(2, 60) if chance.random() < 0.5 else None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_week_backfilled_by_three_runs_at_once_with_kills(spark: "SparkSession", tmp_path: Path) -> None:
    lake = open_store(str(tmp_path / "lake"), create=True)
    generate(USERS, lambda key, path: lake.upload(path, key), 17, date(2026, 1, 8))
    days = [f"{date(2026, 1, 1) + timedelta(days=day)}" for day in range(DAYS)]
    flags = {"encoder.max_steps": "60", "candidates.per_user": "100", "index.min_recall": "0.9"} | LENIENT
    quiet = str(tmp_path / "quiet")
    for day in days:
        with small_pipeline(lake.uri, quiet, spark, flags, day) as pipeline:
            pipeline.run()

    store = tmp_path / "store"
    store.mkdir()
    order = [day for day in days for _ in range(2)]  # each is clicked twice
    random.Random(1).shuffle(order)
    backfill = Backfill(store, kill=kill_some)
    backfill.run([pymk_run(lake.uri, store, day, flags) for day in order])
    assert backfill.kills >= DAYS // 2
    check(backfill, store, days)
    assert content_hashes(str(store)) == content_hashes(quiet)

    again = Backfill(store)
    again.run([pymk_run(lake.uri, store, day, flags) for day in days])
    assert not again.made, "all is found"
    assert again.moves == backfill.moves[-1:], "and CURRENT stays"
    assert content_hashes(str(store)) == content_hashes(quiet)


def check(backfill: Backfill, store: Path, days: list[str]) -> None:
    """CURRENT went forward only and names the newest day; every stage was made once; every release verifies."""
    releases = ReleaseStore(open_store(str(store)))
    pointer = releases.pointer()
    assert pointer
    assert pointer.withdrawn == ()
    remembered = [*reversed(pointer.history), pointer.release_id]  # a short move back is not seen from outside
    for named in (backfill.moves, remembered):
        moves = [releases.get(release_id) for release_id in named]
        assert [r.order for r in moves] == sorted({r.order for r in moves})
    assert moves[-1].as_of.startswith(days[-1])
    assert sorted(r.as_of[:10] for r in releases.list()) == days, "one release a day"
    for release in releases.list():
        releases.verify(release)
    made_once(store, backfill)
