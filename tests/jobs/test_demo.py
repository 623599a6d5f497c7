"""The demonstration does not start work whose answer another server would give."""

import socket
import subprocess
import sys
from pathlib import Path

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
    assert not (tmp_path / "run").exists()
