"""A run of the nightly DAG makes the release that the command makes."""

from pathlib import Path

from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.demo import run_nightly
from tests.conftest import SmallRelease


def test_the_dag_makes_the_same_release_as_the_command(small_release: SmallRelease, tmp_path: Path) -> None:
    """As `make run` starts it."""
    store, home = tmp_path / "store", tmp_path / "airflow"
    store.mkdir()
    form = {"as_of": small_release.as_of, "settings": [f"{k}={v}" for k, v in small_release.flags.items()]}
    run_nightly(home, Path(small_release.lake), store, "2026-03-01", form)
    made, wanted = (ReleaseStore(open_store(str(s))).current() for s in (store, small_release.store))
    assert made is not None
    assert wanted is not None
    assert {k: e.content_hash for k, e in made.artifacts.items()} == {
        k: e.content_hash for k, e in wanted.artifacts.items()
    }
    assert len(list(store.glob("index_shard/*"))) == 2
    assert "report: " in (home / "nightly.log").read_text()
