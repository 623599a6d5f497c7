"""Servers under test, each on one core, and the core that is left to clients; and wrk, which asks them."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from infra.request_threads import SPARE, SPARE_VARIABLE, threads_of
from infra.settings import Settings
from jobs.serve import APP

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("lookup.lua")


@cache
def cores() -> tuple[set[int], set[int]]:
    """(of servers, of clients): one for the servers; the same where there is only one. Of those that this process has
    at first: once it keeps to some, it no longer sees the others."""
    known = sorted(os.sched_getaffinity(0))
    return {known[0]}, set(known[1:] or known)


def keep_to_client_cores() -> None:
    """This process, and all that it starts but servers, leaves the servers' core alone."""
    os.sched_setaffinity(0, cores()[1])


@dataclass(frozen=True)
class Server:
    process: "subprocess.Popen[bytes]"
    url: str

    def resident_mib(self) -> float:
        """Of the largest process, the worker, files that it maps included."""
        return max(p.memory_info().rss for p in self._family()) / 2**20

    def own_mib(self) -> float:
        """Of the largest process, without the pages of files, which processes share and the system takes back."""
        return max(i.rss - i.shared for i in (p.memory_info() for p in self._family())) / 2**20

    def cpu_s(self) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in self._family())

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def served(
    app: str, environment: Mapping[str, str], workers: int = 1, core: set[int] | None = None
) -> Iterator[Server]:
    """Granian with one WSGI app on a free port, ready; stopped afterwards. core: the only ones it may run on."""
    port = free_port()
    spare = SPARE if app == APP else 0
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--factory", "--no-access-log"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)),
        *("--blocking-threads", str(threads_of(Settings()) + spare), "--log-level", "warning", app),
    ]
    told = {**environment, SPARE_VARIABLE: str(spare)}
    with running(command, told, f"http://127.0.0.1:{port}", "/readyz", core) as server:
        yield server


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    url: str,
    ready: str,
    core: set[int] | None = None,
    patience_s: float = 600.0,
) -> Iterator[Server]:
    """A command that serves `url`, once it answers at the path `ready`; stopped afterwards."""
    pinned = ["taskset", "-c", ",".join(map(str, sorted(core)))] if core else []
    process = subprocess.Popen([*pinned, *command], env=os.environ | dict(environment) | {"PYTHONPATH": str(ROOT)})
    try:
        wait_until_ready(f"{url}{ready}", process, patience_s)
        yield Server(process, url)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that differ from one another, and that nobody else who asks for any is given before a server listens there.

    Each has an end of a connection that is over: the system keeps it from others for a minute, but not from a server
    that names it (SO_REUSEADDR).
    """
    with ExitStack() as opened:
        listening = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        for one in listening:
            with socket.create_connection(one.getsockname()), one.accept()[0]:
                pass  # the server's end is closed first, and is the one that is kept
        return [int(one.getsockname()[1]) for one in listening]


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready")


@dataclass(frozen=True)
class Load:
    """One run of wrk. Latencies in milliseconds; cpu_us: of the server for one request, which a busy machine spoils
    less than the requests a second."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int


def need_wrk() -> None:
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")


def wrk(server: Server, seconds: int, connections: int, **said: str) -> Load:
    """said: what lookup.lua takes: users, draw, key, path, body."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT), server.url]
    told = {f"PYMK_BENCH_{name.upper()}": value for name, value in said.items()}
    before = server.cpu_s()
    out = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, check=True).stdout
    result = next(line for line in out.splitlines() if line.startswith("RESULT"))
    requests, micros, p50, p99, errors = (int(float(x)) for x in result.split()[1:])
    cpu_us = (server.cpu_s() - before) / max(requests, 1) * 1e6
    return Load(requests / micros * 1e6, cpu_us, p50 / 1e3, p99 / 1e3, errors)
