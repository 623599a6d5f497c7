"""A real Airflow on loopback: `airflow standalone` with a home and ports of its own, ended with all it started."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.suites.ports import free_ports

DAGS = Path(__file__).parents[2] / "dags"
READY_S, LOOK_S = 240.0, 1.0
READY = "to be ready"
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")


class Airflow:
    """home: its folder; variables: further environment of everything that runs there."""

    def __init__(self, home: Path, variables: Mapping[str, str]) -> None:
        port, logs, triggers = free_ports(3)
        self.home, self.url = home, f"http://127.0.0.1:{port}"
        self.log = home / "standalone.log"
        self.environment = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(triggers),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "NO_COLOR": "1",
            **variables,
        }

    def __enter__(self) -> "Airflow":
        self.home.mkdir(parents=True, exist_ok=True)
        self.command("db", "migrate")
        self.command("pools", "import", str(DAGS / "pools.json"))
        self._processes = [self._start("standalone")]
        try:
            self.until(self._ready, READY_S, READY)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()

    def _start(self, name: str) -> "subprocess.Popen[bytes]":
        """`airflow NAME`, which ends with all it started."""
        airflow = shutil.which("airflow", path=self.environment["PATH"])
        command = [sys.executable, "-m", "jobs.process_tree", str(airflow), name]
        with self.log.open("a") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def _keep_scheduling(self) -> None:
        """Starts a scheduler where there is none any more, as a service manager would.

        With SQLite, making a backfill may lose to the scheduler for the lock; its runs are taken back then, and made by
        a second request, but a scheduler that saw the first ones ends with ObjectDeletedError (Airflow 3.3.2).
        """
        below = [child for one in self._processes for child in psutil.Process(one.pid).children(recursive=True)]
        if not any("scheduler" in " ".join(_words(child)) for child in below):
            self._processes.append(self._start("scheduler"))

    def command(self, *words: str) -> str:
        """What `airflow WORDS` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The JSON answer of the REST API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/v2/{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self._token()}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def runs(self, dag: str, **wanted: str) -> list[dict[str, Any]]:
        """Runs with these values, such as run_type=backfill."""
        found = self.api(f"dags/{dag}/dagRuns?limit=100")["dag_runs"]
        return [run for run in found if all(run[key] == value for key, value in wanted.items())]

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Task instances by name; of mapped ones the last."""
        found = self.api(f"dags/{dag}/dagRuns/{urllib.parse.quote(run, safe='')}/taskInstances?limit=100")
        return {one["task_id"]: one for one in found["task_instances"]}

    def task_log(self, dag: str, run: str, task: str, number: int = 1) -> str:
        where = f"dags/{dag}/dagRuns/{urllib.parse.quote(run, safe='')}/taskInstances/{task}/logs/{number}"
        return json.dumps(self.api(f"{where}?full_content=true"))

    def finished(self, dag: str, runs: Sequence[str], within_s: float) -> dict[str, str]:
        """State by run, once all have ended."""

        def states() -> dict[str, str]:
            known = {run["dag_run_id"]: run["state"] for run in self.runs(dag)}
            return {run: known.get(run, "missing") for run in runs}

        self.until(lambda: all(state in FINISHED for state in states().values()), within_s, f"to end {runs}")
        return states()

    def until(self, holds: Callable[[], Any], within_s: float, what: str) -> Any:
        """Looks every LOOK_S seconds until it holds. Raises AssertionError with the end of Airflow's log."""
        end = time.monotonic() + within_s
        while not (found := holds()):
            assert self._processes[0].poll() is None, f"Airflow ended while it was asked {what}:\n{self._tail()}"
            assert time.monotonic() < end, f"Airflow took too long {what}:\n{self._tail()}"
            time.sleep(LOOK_S)
            if what != READY:
                self._keep_scheduling()
        return found

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=10) as answer:
                health = json.loads(answer.read())
            parts = ("scheduler", "dag_processor", "metadatabase")
            return all(health[part]["status"] == "healthy" for part in parts) and bool(self.api("dags")["dags"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _token(self) -> str:
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=60) as answer:
            token: str = json.loads(answer.read())["access_token"]
        return token

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
