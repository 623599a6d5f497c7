"""`pymk serve` as a process: workers answer, obey the settings, share their metrics and stop when told."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lookup import wait_until_ready
from benchmarks.serving_rows import FIRST_ID
from infra.errors import PymkError, UsageError
from jobs.serve import free_address
from tests.suites.served_store import new_store, publish_day

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(store: str, port: int, *more: str, **streams: Any) -> "subprocess.Popen[Any]":
    command = [sys.executable, "-m", "jobs.cli", "serve", f"--store={store}", f"--port={port}", *more]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, **streams)


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_answers_until_it_is_told_to_stop(tmp_path: Path, workers: int) -> None:
    store = new_store(tmp_path)
    publish_day(store, 1)
    port = free_port()
    caps = ["--set", "rules.max_per_company=1", "--set", "rules.max_per_school=1"]
    server = start(store.uri, port, f"--workers={workers}", *caps)
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


LOADING = """
import multiprocessing, os, signal, time
from granian._signals import set_main_signals
from jobs.serve import _let_early_workers_end

_let_early_workers_end()
set_main_signals(lambda *_: None, lambda *_: None)
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
worker.start()
os.kill(worker.pid, signal.SIGINT)
worker.terminate()
worker.join(20)
print(worker.exitcode)
worker.kill()
"""
"""granian's handlers, and a fork of it that is told to stop before it has handlers of its own."""


def test_a_worker_that_is_still_loading_ends_when_it_is_told_to_stop() -> None:
    told = subprocess.run([sys.executable, "-c", LOADING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(-signal.SIGTERM)


def test_ctrl_c_of_a_terminal_stops_the_server_without_a_word_of_failed_workers(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    publish_day(store, 1)
    port = free_port()
    server = start(store.uri, port, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until_ready(f"http://127.0.0.1:{port}/readyz", server)
    os.killpg(server.pid, signal.SIGINT)
    _, told = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Unexpected exit" not in told


def test_a_port_in_use_is_refused_even_where_its_server_would_share_it(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = start(new_store(tmp_path).uri, port, stderr=subprocess.PIPE, text=True)
        _, told = server.communicate(timeout=60)
        assert server.returncode == 1
        assert f"port {port} on 127.0.0.1 is taken" in told
        with pytest.raises(PymkError, match="choose another port"):
            free_address("0.0.0.0", port)


def test_a_port_that_an_earlier_server_has_just_left_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()  # closes first, and so keeps the port in TIME_WAIT
            client.recv(1)
    assert free_address("127.0.0.1", port) == "127.0.0.1"


@pytest.mark.parametrize("host", ["nosuch.invalid", "203.0.113.7", "a..b"])
def test_a_host_that_is_not_this_machine_is_a_usage_error(host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}: is n.*Give --host"):
        free_address(host, free_port())


def test_a_name_of_this_machine_is_a_host() -> None:
    assert free_address("localhost", free_port()) == "127.0.0.1"
