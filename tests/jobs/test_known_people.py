"""Whether a release knows an id, whatever it knows of it."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts import Manifest, write_artifact
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from infra.times import format_time
from jobs import known_people
from jobs.inactive_bars import FILE, INACTIVE_BARS
from jobs.known_people import is_in_release
from tests.suites.small_release import AS_OF

KNOWN, AWAY, JOINED, UNKNOWN = -5, 8, 9, 7


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), writable=True, create=True)


def artifact(
    store: ObjectStore, kind: str, as_of: str, files: dict[str, np.ndarray | pa.Table], **parents: str
) -> Manifest:
    scratch = store.scratch()
    for name, content in files.items():
        path = scratch / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            np.save(path, content)
    name = f"{as_of[:4]}-{kind}"
    return write_artifact(store, scratch, Manifest(kind, name, as_of, parents, {}, 17, "tests", 1, "0" * 64, ()))


def publish(store: ObjectStore, *, inactive: bool = True, delta: bool = False) -> None:
    as_of = format_time(AS_OF)
    bars = pa.table({"user_id": [AWAY], "other_id": [UNKNOWN]}, schema=INACTIVE_BARS)
    files = {"ids.npy": np.array([KNOWN, 3]), **({FILE: bars} if inactive else {})}
    releases = ReleaseStore(store)
    night = releases.make({"graph": artifact(store, "graph", as_of, files)})
    releases.publish(night)
    if delta:
        later = format_time(AS_OF + timedelta(hours=1))
        joined = {"rankings/part-0.parquet": pa.table({"user_id": [JOINED], "candidate_id": [3]})}
        made = artifact(store, "serving_delta", later, joined, graph=night.artifacts["graph"].artifact_id)
        releases.publish(releases.make_delta(night, {"serving_delta": made}, AS_OF + timedelta(hours=1)))


def known(store: ObjectStore) -> list[int]:
    return [person for person in (KNOWN, 3, AWAY, JOINED, UNKNOWN, -(2**63)) if is_in_release(store, person)]


def test_before_the_first_release_nobody_is_known(store: ObjectStore) -> None:
    assert is_in_release(store, KNOWN) is False


def test_users_and_those_who_were_inactive_are_known(store: ObjectStore) -> None:
    publish(store)
    assert known(store) == [KNOWN, 3, AWAY]


def test_who_joined_since_is_known(store: ObjectStore) -> None:
    publish(store, delta=True)
    assert known(store) == [KNOWN, 3, AWAY, JOINED]


def test_a_release_of_an_earlier_version_keeps_nothing_of_the_inactive(store: ObjectStore) -> None:
    publish(store, inactive=False)
    assert known(store) == [KNOWN, 3]


def test_who_is_in_an_earlier_release_alone_is_known(store: ObjectStore) -> None:
    publish(store)
    releases, as_of = ReleaseStore(store), format_time(AS_OF + timedelta(days=400))
    releases.publish(releases.make({"graph": artifact(store, "graph", as_of, {"ids.npy": np.array([UNKNOWN])})}))
    assert known(store) == [KNOWN, 3, AWAY, UNKNOWN]


def test_of_a_damaged_release_it_cannot_be_told(store: ObjectStore, tmp_path: Path) -> None:
    publish(store)
    for path in (tmp_path / "store").rglob("ids.npy"):
        path.write_bytes(b"damaged")
    assert is_in_release(store, KNOWN) is None


@pytest.mark.parametrize("error", [OSError("no room"), pa.ArrowInvalid("torn"), pa.ArrowKeyError("no column")])
def test_where_its_files_cannot_be_read_it_cannot_be_told(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*asked: object) -> None:
        raise error

    publish(store)
    monkeypatch.setattr(known_people, "open_sound_files", fail)
    assert is_in_release(store, KNOWN) is None


def test_an_erasure_needs_no_spark() -> None:
    code = "import sys, jobs.erasure; print([m for m in ('torch', 'pyspark') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
