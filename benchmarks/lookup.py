"""Requests a second of the precomputed path beside an empty Flask route: same server, same client, interleaved.

    python -m benchmarks.lookup [--users 20000,1000000] [--seconds 8] [--repeats 5] [--connections 16]

Both run under granian with one worker; wrk asks for uniformly random users. The ratio is what holds on other machines.
"""

import argparse
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.serving_rows import publish
from infra.settings import Settings
from infra.store import open_store
from jobs.serve import APP, THREADS, worker_environment

EMPTY = "benchmarks.empty_route:create_app"
SCRIPT = Path(__file__).with_name("lookup.lua")
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Load:
    """One run of wrk. Latencies in milliseconds; cpu_us: of the server for one request, which a busy machine spoils
    less than the requests a second."""

    per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    errors: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="20000", help="sizes of the tables, by comma")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    print_machine()
    for users in [int(size) for size in args.users.split(",")]:
        with tempfile.TemporaryDirectory() as folder:
            measure(folder, users, args.seconds, args.repeats, args.connections)


def print_machine() -> None:
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB")
    print(
        f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in ("flask", "granian", "lmdb"))
    )


def measure(folder: str, users: int, seconds: int, repeats: int, connections: int) -> None:
    """Prints both routes and their ratio: medians of interleaved runs."""
    start = time.perf_counter()
    publish(open_store(folder), users, AS_OF, "bench")
    print(f"\n{users:,} users written in {time.perf_counter() - start:.0f} s; {connections} connections, one worker")
    with served(APP, worker_environment(folder, Settings())) as lookup, served(EMPTY, {}) as empty:
        runs: dict[str, list[Load]] = {"empty route": [], "precomputed": []}
        for server in 2 * [empty, lookup]:
            wrk(server, users, 1, connections)
        for _ in range(repeats):
            runs["empty route"].append(wrk(empty, users, seconds, connections))
            runs["precomputed"].append(wrk(lookup, users, seconds, connections))
        for name, loads in runs.items():
            errors = sum(load.errors for load in loads)
            print(
                f"{name:12} {median(loads, 'per_second'):8,.0f} requests/s  p50 {median(loads, 'p50_ms'):5.2f} ms  "
                f"p99 {median(loads, 'p99_ms'):5.2f} ms  {median(loads, 'cpu_us'):4.0f} us CPU  errors {errors}"
            )
        pairs = list(zip(runs["precomputed"], runs["empty route"], strict=True))
        ratio = statistics.median(a.per_second / b.per_second for a, b in pairs)
        cpu = statistics.median(b.cpu_us / a.cpu_us for a, b in pairs)
        print(f"ratio {ratio:.2f}, by CPU {cpu:.2f}; resident memory of the worker {lookup.resident_mib():.0f} MiB")


def median(loads: list[Load], name: str) -> float:
    return statistics.median(getattr(load, name) for load in loads)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    url: str

    def resident_mib(self) -> float:
        """Of the largest process: the worker."""
        return max(p.memory_info().rss for p in self._family()) / 2**20

    def cpu_s(self) -> float:
        return sum(sum(p.cpu_times()[:2]) for p in self._family())

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def served(app: str, environment: dict[str, str], workers: int = 1) -> Iterator[Server]:
    """Granian with one app on a free port, ready; stopped afterwards."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--factory", "--no-access-log"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)),
        *("--blocking-threads", str(THREADS), "--log-level", "warning", app),
    ]
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(command, env=os.environ | environment | {"PYTHONPATH": root})
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
        yield Server(process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes], patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready")


def wrk(server: Server, users: int, seconds: int, connections: int) -> Load:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT), server.url]
    environment = os.environ | {"PYMK_BENCH_USERS": str(users)}
    before = server.cpu_s()
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    result = next(line for line in out.splitlines() if line.startswith("RESULT"))
    requests, micros, p50, p99, errors = (int(float(x)) for x in result.split()[1:])
    cpu_us = (server.cpu_s() - before) / max(requests, 1) * 1e6
    return Load(requests / micros * 1e6, cpu_us, p50 / 1e3, p99 / 1e3, errors)


if __name__ == "__main__":
    main()
