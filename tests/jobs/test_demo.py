"""The demonstration does not start work whose answer another server would give."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from jobs.demo import end_family
from tests.jobs.test_process_tree import runs

ROOT = Path(__file__).parents[2]


def test_a_taken_port_is_refused_before_any_work(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "jobs.demo", "--once", f"--folder={tmp_path / 'run'}", f"--port={port}"]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken" in " ".join((made.stdout + made.stderr).split())
    assert "make run PORT=8001" in " ".join((made.stdout + made.stderr).split())
    assert not (tmp_path / "run").exists()


DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {DEAF!r}])"


def test_a_process_is_ended_with_all_that_it_started_and_also_what_does_not_listen() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) == 2
    end_family(process.pid)
    assert not any(runs(one.pid) for one in family)
    process.communicate()
    end_family(process.pid)


NIGHT = """
import subprocess, sys
from pathlib import Path
import jobs.demo

sys.executable = sys.argv[1]
jobs.demo.main.__globals__["free_address"] = lambda host, port: host
sys.argv = ["demo", "--once", f"--folder={sys.argv[2]}"]
jobs.demo.main()
"""
AIRFLOW = """#!/bin/sh
case "$*" in *"dags test"*) echo $$ > "$0.pid"; echo "pymk graph: begun"; exec sleep 600;; esac
"""


def test_the_demo_told_to_stop_ends_the_night_it_started(tmp_path: Path) -> None:
    """A stand-in for Airflow, as this is of signals and not of the night."""
    (tmp_path / "run" / "lake").mkdir(parents=True)
    airflow = tmp_path / "python"
    airflow.write_text(AIRFLOW)
    airflow.chmod(0o755)
    demo = subprocess.Popen(
        [sys.executable, "-c", NIGHT, str(airflow), str(tmp_path / "run")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert demo.stderr is not None
    while "graph: begun" not in demo.stderr.readline():
        assert demo.poll() is None
    night = int((tmp_path / "python.pid").read_text())
    assert runs(night)
    os.kill(demo.pid, signal.SIGTERM)
    demo.communicate(timeout=60)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not runs(night)
