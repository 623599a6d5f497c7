"""A run of the nightly DAG makes the release that the command makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from infra.releases import ReleaseStore
from infra.store import open_store
from tests.conftest import SmallRelease
from tests.dags.test_dags import DAGS


def test_the_dag_makes_the_same_release_as_the_command(small_release: SmallRelease, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYMK_LAKE": small_release.lake,
        "PYMK_STORE": str(store),
        "PYMK_LATE": "pymk_nightly=0",  # `dags test` of Airflow 3.3.2 fails at the end of a DAG with a deadline
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
    assert "report: " in done.stdout
