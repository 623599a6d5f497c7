"""Leases on both stores, and between processes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.leases import LeaseFile, Maker, take
from infra.process_life import is_gone, this_process
from infra.store import ObjectStore, open_store
from tests.suites.leases import NAME, LeaseSuite


class TestInAFolder(LeaseSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(str(tmp_path / "store"), create=True)


class TestInABucket(LeaseSuite):
    @pytest.fixture
    def store(self, s3_bucket: str) -> ObjectStore:
        return open_store(f"s3://{s3_bucket}/store", writable=True)


def test_a_lease_of_version_1_opens_and_is_written_byte_for_byte() -> None:
    stored = (Path(__file__).parents[1] / "golden" / "lease" / "v1" / "lease.json").read_bytes()
    lease = LeaseFile.from_json(stored, "")
    assert lease.holder is None
    assert lease.maker
    assert lease.maker.maker == Maker("b", "worker-1", "boot:pid:[1]/7/99", "0.1.0+0123456789ab", "nightly by ada")
    assert [(turn.token, turn.state) for turn in lease.turns] == [(1, "lost"), (2, "made")]
    assert lease.to_json() == stored.strip()


TAKE_AND_DIE = """
import os, signal, sys
from infra.leases import LeaseFile, Maker, take
from infra.process_life import this_process
from infra.store import open_store
with take(open_store(sys.argv[1]), sys.argv[2], Maker("a", "h", this_process(), "1")) as lease:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_holder_is_succeeded_at_once(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", TAKE_AND_DIE, str(tmp_path), NAME], check=False)
    assert killed.returncode == -signal.SIGKILL
    slept = list[float]()
    lease = take(open_store(str(tmp_path)), NAME, Maker("b", "h", this_process(), "1"), sleep=slept.append)
    assert lease
    assert lease.token == 2
    assert not slept


def test_a_process_is_gone_when_it_has_ended_and_only_then() -> None:
    assert not is_gone(this_process())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    machine = this_process().split("/")[0]
    stat = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    name = f"{machine}/{child.pid}/{stat[19]}"
    assert not is_gone(name)
    child.kill()
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert is_gone(name), "though its parent did not ask yet"
    child.wait()
    assert is_gone(name)


@pytest.mark.parametrize("name", ["", "x", "x/y/z", "another machine/1/2", "//"])
def test_nobody_knows_of_a_process_elsewhere(name: str) -> None:
    assert not is_gone(name)
