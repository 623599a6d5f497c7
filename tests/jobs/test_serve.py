"""`pymk serve` as a process: workers answer, obey the settings, share their metrics and stop when told."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import wait_until_ready
from benchmarks.serving_rows import FIRST_ID
from infra.errors import PymkError, StoreError, UsageError
from infra.keys import KeyStore, utc_now
from infra.settings import ApiSettings, Settings, load
from jobs.serve import (
    SECTIONS,
    Respawns,
    free_address,
    guarded_host,
    refuse_eviction,
    serve,
    worker_environment,
)
from lookup_api.app import create_app
from tests.suites.command import pymk
from tests.suites.ports import free_port
from tests.suites.redis_server import RedisServer
from tests.suites.served_store import new_store, publish_day

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize("command", ["serve", "shards", "leaf"])
def test_a_lake_is_not_served_and_nothing_is_written_into_it(tmp_path: Path, command: str) -> None:
    (tmp_path / "connections").mkdir()
    told = pymk(command, "--store", str(tmp_path), "--port", str(free_port()))
    assert told.returncode == 2
    assert "is a lake, not a store" in " ".join(told.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["connections"]


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
        taken = ("leaf", f"--store={tmp_path}", f"--metrics-port={port}", f"--port={free_port()}")
        told = " ".join(pymk(*taken).stderr.split())
        assert f"port {port} on 127.0.0.1 is taken. Stop the server" in told
        assert told.endswith("with --metrics-port.")


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


def test_sigterm_says_not_ready_first_and_drops_nobody(tmp_path: Path) -> None:
    """Asked without a break while it stops: every request gets a 200 until the port is closed, and /readyz a 503."""
    store = new_store(tmp_path)
    publish_day(store, 1, users=20)
    port = free_port()
    server = start(store.uri, port, "--set", "api.drain_s=3")
    url = f"http://127.0.0.1:{port}"
    wait_until_ready(f"{url}/readyz", server)
    server.send_signal(signal.SIGTERM)
    statuses, unready = set(), 0
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        while server.poll() is None:
            try:
                for path in (f"/v1/users/{FIRST_ID}/recommendations", "/readyz"):
                    connection.request("GET", path)
                    with connection.getresponse() as answer:
                        answer.read()
                        if path == "/readyz":
                            unready += answer.status == 503
                        else:
                            statuses.add(answer.status)
            except (ConnectionError, http.client.HTTPException):
                break
    assert server.wait(60) == 0
    assert statuses == {200}
    assert unready > 0


def test_without_a_key_only_loopback_is_listened_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = new_store(tmp_path)
    assert guarded_host(store.uri, "0.0.0.0") == "127.0.0.1"
    assert "no API key is configured" in caplog.text
    assert "pymk key create" in caplog.text
    caplog.clear()
    assert guarded_host(store.uri, "::1") == "::1"
    assert "only this machine is answered" in caplog.text
    KeyStore(store).create("somebody", ["read"], utc_now())
    caplog.clear()
    assert guarded_host(store.uri, "0.0.0.0") == "0.0.0.0"
    assert guarded_host(store.uri, "127.0.0.1") == "127.0.0.1"
    assert not caplog.text


def test_a_store_whose_keys_cannot_be_read_is_served_where_it_was_asked_for_behind_locked_doors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert guarded_host(str(tmp_path / "away"), "0.0.0.0") == "0.0.0.0"
    assert "only those known last open" in caplog.text
    settings = Settings(api=ApiSettings(host="0.0.0.0", facts=str(tmp_path / "facts"), poll_s=3600))
    app = create_app(str(tmp_path / "away"), settings)
    assert app.test_client().get("/v1/users/1/recommendations").status_code == 401
    app.extensions["pymk"].stop()


def test_a_store_elsewhere_needs_a_place_for_live_facts() -> None:
    with pytest.raises(UsageError, match=r"api\.facts"):
        serve("s3://bucket/store", Settings(), "127.0.0.1", free_port(), 1)


def test_a_redis_that_may_evict_live_facts_is_refused_and_one_that_does_not_answer_yet_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_eviction(f"redis://127.0.0.1:{free_port()}", Settings())
    assert "cannot be asked yet" in caplog.text
    refuse_eviction(str(tmp_path / "live"), Settings())
    server = RedisServer(tmp_path, maxmemory="100mb", maxmemory_policy="allkeys-random").start()
    settings = Settings.model_validate({"api": {"facts": server.uri}})
    with pytest.raises(StoreError, match=r"api\.facts: .*allkeys-random.*noeviction"):
        serve(str(tmp_path / "store"), settings, "127.0.0.1", free_port(), 1)
    server.stop()


def test_workers_read_every_setting_of_theirs() -> None:
    settings, _ = load(None, {"ladder.ann_shards": "a:1,b:2", "rules.max_per_school": "7", "api.user_per_s": "5"}, {})
    found = worker_environment("store", settings, "0.0.0.0")
    again, _ = load(None, {}, {name: value for name, value in found.items() if name != "PYMK_STORE"})
    assert again.api.host == "0.0.0.0"
    for section in SECTIONS:
        assert getattr(again, section) == getattr(settings, section) or section == "api"
    assert again.api.user_per_s == 5


def test_log_lines_of_a_server_are_json_and_carry_no_key(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    publish_day(store, 1, users=20)
    key = KeyStore(store).create("somebody", ["read"], utc_now())[1]
    port = free_port()
    server = start(store.uri, port, "--set", "api.log_requests=all", "--set", "api.drain_s=0", stderr=subprocess.PIPE)
    wait_until_ready(f"http://127.0.0.1:{port}/readyz", server)
    path = f"http://127.0.0.1:{port}/v1/users/{FIRST_ID}/recommendations"
    urllib.request.urlopen(urllib.request.Request(path, headers={"Authorization": f"Bearer {key}"})).close()
    server.terminate()
    told = server.communicate(timeout=60)[1].decode()
    lines = [json.loads(line) for line in told.splitlines()]
    assert key not in told
    assert any(line["message"] == "answered" and line["source"] == "precomputed" for line in lines)


def test_a_worker_that_ended_is_in_no_gauge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store = new_store(tmp_path)
    publish_day(store, 1)
    port = free_port()
    server = start(store.uri, port, "--workers=2")

    def gauges_of() -> set[int]:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", "/metrics")
            assert connection.getresponse().read()
        return {int(path.stem.rpartition("_")[2]) for path in tmp_path.glob("pymk-server-*/gauge_live*.db")}

    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", server)
        killed = min(gauges_of())
        os.kill(killed, signal.SIGKILL)
        left, until = {killed}, time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError, http.client.HTTPException):  # it may still be asked for a moment
                left = gauges_of()
            if left and killed not in left:
                break
            time.sleep(0.05)
        assert left
        assert killed not in left
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def test_a_worker_that_is_killed_twice_ends_no_server_and_one_that_cannot_start_does() -> None:
    """granian takes a worker for looping whose last start, as told here, is 5.5 s ago or less."""
    killed, looping = Respawns(), Respawns()
    for at_s in range(0, 60, 15):
        killed[0] = at_s
    assert killed.get(0, -1) == -1
    for at_s in range(0, 60, 3):
        looping.clear()
        looping[1] = at_s
    assert looping.get(1, -1) == 57
    assert looping.get(0, -1) == -1
