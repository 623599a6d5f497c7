"""Metrics of several workers: what those that ended said of themselves is forgotten, what they counted is not."""

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookup_api.metrics import Metrics, _of_whole_files

WORKER = """
import sys
from lookup_api.metrics import Metrics

metrics = Metrics()
metrics.serving(sys.argv[1], float(sys.argv[2]), None)
print("ready", flush=True)
for _ in sys.stdin:
    print(metrics.exposition().decode() + "END", flush=True)
"""


class Worker:
    """A process that serves a release of some age and tells all metrics when it is asked."""

    def __init__(self, folder: Path, release: str, age_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, release, str(time.time() - age_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        )

        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def told(self) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        lines = iter(self._process.stdout.readline, "END\n")
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def kill(self) -> None:
        """Until the test ends nobody asks how it ended."""
        self._process.kill()
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    started = Worker(tmp_path, "old", 1e6), Worker(tmp_path, "new", 0)
    yield started
    for worker in started:
        worker.close()


def test_what_a_worker_that_ended_said_of_itself_is_forgotten(workers: tuple[Worker, Worker]) -> None:
    ended, other = workers
    assert ended.told()['pymk_release_info{release="old"}'] == 1
    together = other.told()
    assert (together['pymk_release_info{release="old"}'], together['pymk_release_info{release="new"}']) == (1, 1)
    ended.kill()
    left = other.told()
    assert 'pymk_release_info{release="old"}' not in left
    assert left['pymk_release_info{release="new"}'] == 1
    assert left["pymk_release_swaps_total"] == 2, "what was counted was counted"


def test_a_file_that_another_worker_has_just_made_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookup_api.metrics.AGAIN_S", 0)
    found: list[bytes] = [b"", b"", b"\x07\0\0\0"]
    assert _of_whole_files(lambda: struct.unpack("<i", found.pop(0))) == (7,)
    with pytest.raises(struct.error):
        _of_whole_files(lambda: struct.unpack("<i", b""))


def test_the_age_is_of_the_release_of_who_is_asked(workers: tuple[Worker, Worker]) -> None:
    old, new = workers
    assert old.told()["pymk_release_age_seconds"] >= 1e6
    assert new.told()["pymk_release_age_seconds"] < 1e5


def test_the_age_of_the_night_is_not_that_of_the_hour() -> None:
    metrics = Metrics()
    now = time.time()
    metrics.serving("hour", now - 60, None, now - 90_000)
    told = dict(line.rsplit(" ", 1) for line in metrics.exposition().decode().splitlines() if line[0] != "#")
    assert 60 <= float(told["pymk_release_age_seconds"]) < 90_000 <= float(told["pymk_nightly_age_seconds"])
    metrics.serving("night", now - 60, "hour")
    told = dict(line.rsplit(" ", 1) for line in metrics.exposition().decode().splitlines() if line[0] != "#")
    assert told["pymk_nightly_age_seconds"] == told["pymk_release_age_seconds"]
