"""`pymk serve` as a process: workers answer, obey the settings, share their metrics and stop when told."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks.lookup import wait_until_ready
from benchmarks.serving_rows import FIRST_ID
from tests.suites.served_store import new_store, publish_day

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_answers_until_it_is_told_to_stop(tmp_path: Path, workers: int) -> None:
    store = new_store(tmp_path)
    publish_day(store, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jobs.cli", "serve", f"--store={store.uri}", f"--port={port}"]
    command += [f"--workers={workers}", "--set", "rules.max_per_company=1", "--set", "rules.max_per_school=1"]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/readyz", server)
        with urllib.request.urlopen(f"{url}/v1/users/{FIRST_ID}/recommendations?limit=100") as answer:
            assert json.load(answer)["source"] == "precomputed"
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            text = answer.read().decode()
        assert 'pymk_requests_total{source="precomputed",status="200"} 1.0' in text
        assert "pymk_demoted_total 0.0" not in text, "the caps of the command line reached the worker"
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    assert code == 0
