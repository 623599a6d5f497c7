"""A release tells what made it: which runs, of which code and settings, from which files and parents."""

import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.errors import CorruptArtifact
from infra.release_records import Lineage, lineage_of
from infra.releases import ReleaseStore
from infra.settings import Settings
from infra.store import open_store
from jobs.lineage import record_lineage, settings_digest, this_run
from jobs.stages import STAGES
from jobs.version import VERSION, _version, commit
from tests.conftest import SmallRelease, small_pipeline
from tests.jobs.test_publishing import make_night
from tests.suites.command import pymk, pymk_json

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_release_show_tells_the_run_the_code_the_files_and_the_parents(small_release: SmallRelease) -> None:
    shown = pymk_json("release", "show", f"--store={small_release.store}")
    told = shown["lineage"]
    assert told["host"] == socket.gethostname()
    assert told["code_version"] == VERSION
    assert len(told["settings_digest"]) == 64
    assert told["settings"]["encoder"]["max_steps"] == int(small_release.flags["encoder.max_steps"])
    assert told["settings"]["encoder"]["device"] != "auto", "as resolved for this machine"
    assert not {"api", "events", "store", "spark"} & set(told["settings"]), "what a release does not depend on"
    assert told["lake"]["uri"] == small_release.lake
    lake = Path(small_release.lake)
    assert told["lake"]["files"] == {
        path.relative_to(lake).as_posix(): path.stat().st_size for path in lake.glob("*/*.parquet")
    }
    assert set(told["artifacts"]) == {stage.kind for stage in STAGES}
    for stage in STAGES:
        made = told["artifacts"][stage.kind]
        assert made["artifact_id"] == shown["artifacts"][stage.kind]["artifact_id"]
        assert {kind: made["parents"][kind] for kind in stage.parents} == {
            kind: shown["artifacts"][kind]["artifact_id"] for kind in stage.parents
        }
        assert (made["run_id"], made["token"]) == (told["run_id"], 1)
    page = pymk("release", "show", f"--store={small_release.store}").stdout
    for text in (told["run_id"], VERSION, told["settings_digest"], small_release.lake):
        assert text in page


def test_who_made_a_stage_is_told_and_not_who_found_it(
    small_release: SmallRelease, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMK_RUN_ID", "pymk_nightly/manual__2026-01-02 by ada")
    with small_pipeline(small_release.lake, small_release.store, spark, {"evaluate.backends": "exact"}) as pipeline:
        release_id = pipeline.run(publish=False)["release_id"]
    told = lineage_of(open_store(small_release.store), release_id)
    assert told
    assert told.dag_run == "pymk_nightly/manual__2026-01-02 by ada"
    runs = {kind: made["dag_run"] for kind, made in told.artifacts.items()}
    assert runs.pop("report") == told.dag_run
    assert set(runs.values()) == {None}


def test_the_first_record_of_a_release_stands(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    release = make_night(store, 0)
    assert lineage_of(store, release.release_id) is None
    first = record_lineage(store, release, this_run(), Settings(), {"uri": "l", "files": {"a": 1}})
    assert record_lineage(store, release, this_run(), Settings()) == first
    assert lineage_of(store, release.release_id) == first
    assert first.artifacts["index"]["parents"] == {"graph": release.artifacts["graph"].artifact_id}
    assert "run_id" not in first.artifacts["index"], "nobody knows"
    assert [r.release_id for r in ReleaseStore(store).list()] == [release.release_id], "a record is no release"


def test_it_tells_the_commit_of_a_checkout_and_that_files_differ_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        told = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words]
        return subprocess.run(told, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr("jobs.version._ROOT", tmp_path)
    monkeypatch.setattr("jobs.version.VERSION", _version())
    assert commit() is None
    git("init", "-q")
    (tmp_path / "README").write_text("a")
    git("add", "README")
    git("commit", "-q", "-m", "a")
    head = git("rev-parse", "HEAD")
    assert commit() == head
    (tmp_path / "README").write_text("b")
    assert commit() == f"{head}-dirty"
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/new.py").write_text("")
    assert commit() is None, "another code runs"


@pytest.mark.parametrize(("files", "said"), [({"a": 7}, "1 file, 7 bytes"), ({"a": 7, "b": 2}, "2 files, 9 bytes")])
def test_release_show_tells_the_commit_and_counts_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, int], said: str
) -> None:
    monkeypatch.setattr("jobs.lineage.commit", lambda: "c0ffee")
    store = open_store(str(tmp_path), create=True)
    release = make_night(store, 0)
    assert record_lineage(store, release, this_run(), Settings(), {"uri": "l", "files": files}).commit == "c0ffee"
    page = pymk("release", "show", release.release_id, f"--store={tmp_path}").stdout
    assert f"{VERSION}, commit c0ffee" in page
    assert said in page


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    for content in (b"", b"[]", b'{"schema_version": 1}', b'{"schema_version": 1, "parents": [], "x": 1}'):
        store.put("releases/a/lineage.json", content)
        with pytest.raises(CorruptArtifact, match=r"lineage.json: not a lineage.*Delete the file"):
            lineage_of(store, "a")
    store.put("releases/a/lineage.json", b'{"schema_version": 9, "parents": []}')
    with pytest.raises(CorruptArtifact, match="lineage version 9, this code reads 1"):
        lineage_of(store, "a")
    kept = Lineage("r", None, "h", "1", "t", "d", {"uri": "l"}, {"graph": {"token": 1}}, "b", ("p",))
    assert Lineage.from_json(kept.to_json(), "x") == kept


def test_settings_that_change_no_content_change_no_digest() -> None:
    plain = settings_digest(Settings())
    assert settings_digest(Settings.model_validate({"api": {"poll_s": 7}, "store": {"keep_releases": 3}})) == plain
    assert settings_digest(Settings.model_validate({"ranker": {"trees": 7}})) != plain
