"""`pymk release` on stores with a fault: what is said, and what repairs it."""

from pathlib import Path
from typing import Any

import pytest

from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.cli_release import publish
from tests.jobs.test_publishing import make_night
from tests.suites.command import pymk, pymk_json


def test_a_truncated_current_is_repaired_by_a_forced_publish(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    releases = [make_night(store, day) for day in range(2)]
    for release in releases:
        ReleaseStore(store).publish(release)
    current = tmp_path / "CURRENT"
    current.write_bytes(current.read_bytes()[:20])
    (tmp_path / "releases" / ".DS_Store").write_bytes(b"x")
    ids = [release.release_id for release in releases]

    listed = pymk("release", "list", f"--store={tmp_path}", "--json")
    assert listed.returncode == 0
    assert all(release_id in listed.stdout for release_id in ids)
    said = [listed.stderr]
    for command in (["show"], ["publish", ids[1]], ["rollback"], ["verify"], ["clean"]):
        said.append(pymk_json("release", *command, f"--store={tmp_path}", code=1)["error"]["fix"])
    assert all("`pymk release publish ID --force`" in " ".join(one.split()) for one in said)

    assert pymk_json("release", "publish", ids[1], "--force", f"--store={tmp_path}")["published"]
    assert pymk_json("release", "list", f"--store={tmp_path}")["current"] == ids[1]


@pytest.mark.parametrize("lake", [None, "/lake"])
def test_who_publishes_with_the_lake_carries_forward_what_later_hours_knew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lake: str | None
) -> None:
    asked: list[Any] = []

    def keep(*_: Any, carry: Any, **__: Any) -> dict[str, str]:
        asked.append(carry)
        return {"said": "published"}

    monkeypatch.setattr("jobs.publishing.publish_release", keep)
    monkeypatch.setattr("jobs.hourly.carrier", lambda *places: places[0])
    store = open_store(str(tmp_path), create=True)
    publish(make_night(store, 0).release_id, store.uri, lake=lake)
    assert asked == [lake]


def test_cleaning_keeps_as_many_releases_as_the_settings_file_says(tmp_path: Path) -> None:
    store, config = open_store(str(tmp_path / "store"), create=True), tmp_path / "pymk.toml"
    nights = [make_night(store, day).release_id for day in range(4)]
    ReleaseStore(store).publish(ReleaseStore(store).get(nights[-1]))
    for keep, gone in ((4, []), (3, nights[:1])):
        config.write_text(f"[store]\nkeep_releases = {keep}\n")
        words = ("release", "clean", f"--store={store.uri}", f"--config={config}", "--grace-hours=0")
        assert pymk_json(*words)["releases"] == gone
    assert pymk_json(*words, "--keep=2")["releases"] == nights[1:2], "what is asked for stands over it"


@pytest.mark.parametrize(
    ("store", "endpoint", "code", "said"),
    [
        ("s3://", "http://127.0.0.1:9", 2, "no bucket"),
        ("s3:///prefix", "http://127.0.0.1:9", 2, "no bucket"),
        ("s3://No_Bucket!/x", "http://127.0.0.1:9", 2, "not a name of a bucket"),
        ("s3://bucket/x", "notaurl", 1, "notaurl"),
    ],
)
def test_a_store_that_cannot_be_one_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, store: str, endpoint: str, code: int, said: str
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    error = pymk_json("release", "list", f"--store={store}", code=code)["error"]
    assert said in error["what"]
    assert error["fix"]
    assert "regex" not in error["what"]
