"""A command that SIGTERM ends, as a scheduler does, gives back what it held: lease, temporary folders, Spark."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path

import psutil
import pytest

from infra.leases import FAILED, lease_of
from infra.store import open_store
from infra.store_folder import INTERNAL
from jobs.sample import generate
from jobs.termination import EXIT_CODE

AS_OF = "2026-01-01"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    lake = open_store(str(tmp_path_factory.mktemp("lake")))
    generate(2000, lambda key, path: lake.upload(path, key), 17, date(2026, 1, 1))
    return lake.uri


def stage(name: str, lake: str, store: Path) -> list[str]:
    places = [f"--lake={lake}", f"--store={store}", f"--as-of={AS_OF}"]
    return [sys.executable, "-m", "jobs.cli", "stage", name, "--json", *places]


@pytest.mark.parametrize("whole_tree", [False, True], ids=["the command", "the command and all below it"])
def test_a_spark_stage_that_is_ended_leaves_nothing_behind(whole_tree: bool, lake: str, tmp_path: Path) -> None:
    store, temporary = tmp_path / "store", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        stage("build_graph", lake, store),
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "told").open("w"),
    )
    while not list(temporary.glob("pymk-spark-*/blockmgr-*")):  # Spark is at work
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert below
    process.terminate()
    for one in below if whole_tree else ():
        with suppress(psutil.NoSuchProcess):  # the command is ending them already
            one.terminate()
    said, _ = process.communicate()
    assert process.returncode == EXIT_CODE == 128 + 15, (tmp_path / "told").read_text()
    assert json.loads(said)["error"]["exit_code"] == EXIT_CODE
    psutil.wait_procs(below)
    assert list(temporary.iterdir()) == []
    assert list((store / INTERNAL / "tmp").iterdir()) == []
    (lease,) = (store / "leases" / "graph").iterdir()
    found = lease_of(open_store(str(store)), f"graph/{lease.name}")
    assert found is not None
    assert [turn.state for turn in found.turns] == [FAILED]
    assert not (store / "graph").exists()


def test_a_second_sigterm_does_not_cut_the_end_short() -> None:
    code = """
import os, signal
from jobs.termination import unwind_at_sigterm
unwind_at_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("given back")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_CODE, "given back\n")


def test_what_is_started_during_the_end_can_be_ended() -> None:
    code = """
import os, signal, subprocess
from jobs.termination import unwind_at_sigterm
unwind_at_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    started = subprocess.Popen(["sleep", "30"])
    started.terminate()
    print(started.wait())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (EXIT_CODE, f"{-signal.SIGTERM}\n")
