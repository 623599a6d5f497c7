"""DAG integrity: they import, stay light, and wire every stage in order."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.stages import STAGES
from tests.conftest import SmallRelease

DAGS = Path(__file__).parents[2] / "dags"
HEAVY = ("torch", "pyspark", "numpy", "pandas", "pyarrow", "faiss")


def in_dags_folder(code: str, home: Path) -> Any:
    environment = os.environ | {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(DAGS)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def nightly(tmp_path_factory: pytest.TempPathFactory) -> Any:
    code = f"""
import json, sys, pymk_nightly
from airflow.sdk import DAG
dag = pymk_nightly.pymk_nightly()
print(json.dumps({{
    "heavy": [m for m in {HEAVY!r} if m in sys.modules],
    "tasks": {{t.task_id: sorted(t.upstream_task_ids) for t in dag.tasks}},
    "owners": sorted({{t.owner for t in dag.tasks}}),
    "retries": sorted({{t.retries for t in dag.tasks}}),
    "doc": dag.doc_md,
    "params": sorted(dag.params),
}}))
"""
    return in_dags_folder(code, tmp_path_factory.mktemp("airflow"))


def test_parsing_loads_no_engine(nightly: Any) -> None:
    assert nightly["heavy"] == []


def test_every_stage_is_a_task_after_the_one_before(nightly: Any) -> None:
    names = [stage.name for stage in STAGES]
    for before, after in zip(names, [*names[1:], "publish"], strict=True):
        wanted = "build_shard" if after == "build_index" else before
        assert wanted in nightly["tasks"][after], after
    assert "embed" in nightly["tasks"]["build_shard"]


def test_tasks_are_owned_retried_and_explained(nightly: Any) -> None:
    assert nightly["owners"] == ["ml-platform"]
    assert nightly["retries"] == [2]
    assert "pymk release rollback" in nightly["doc"]
    assert nightly["params"] == ["as_of", "settings"]


def test_the_as_of_of_a_run_is_midnight_utc_of_its_day(tmp_path: Path) -> None:
    code = """
import json
from datetime import datetime, timezone, timedelta
from stage_task import midnight
east = timezone(timedelta(hours=5))
print(json.dumps([midnight(datetime(2026, 1, 2, 2, tzinfo=zone)) for zone in (timezone.utc, east)]))
"""
    assert in_dags_folder(code, tmp_path) == ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]


def test_the_dag_makes_the_same_release_as_the_command(small_release: SmallRelease, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYMK_LAKE": small_release.lake,
        "PYMK_STORE": str(store),
    }
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environment, capture_output=True, check=True)
    form = json.dumps({"as_of": small_release.as_of, "settings": [f"{k}={v}" for k, v in small_release.flags.items()]})
    done = subprocess.run(
        [*airflow, "dags", "test", "pymk_nightly", "2026-03-01", "--conf", form],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    made, wanted = (ReleaseStore(open_store(str(s))).current() for s in (store, small_release.store))
    assert made is not None
    assert wanted is not None
    assert {k: e.content_hash for k, e in made.artifacts.items()} == {
        k: e.content_hash for k, e in wanted.artifacts.items()
    }
    assert len(list(store.glob("index_shard/*"))) == 2
