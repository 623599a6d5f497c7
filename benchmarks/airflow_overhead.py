"""What Airflow adds: `python -m benchmarks.airflow_overhead [--users N] [--parse]`.

A night of generated users, once as the commands that its tasks run, one after another, and once as a run of
pymk_nightly on a real `airflow standalone` with one task at a time. What Airflow adds a task is the difference of the
wall times, of the run from its start to its end, over its tasks. --parse: the time to parse all DAGs beside that to
import airflow.sdk, each in a new process, in turns.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from jobs.stages import PUBLISH, STAGES
from tests.suites.airflow import DAGS, Airflow

AS_OF = "2026-01-01"
SETTINGS = ("encoder.max_steps=60", "index.min_recall=0.5")
GOAL_S, GOAL_PARSE = 10.0, 1.5
SDK = "import airflow.sdk"


def commands(lake: Path, store: Path) -> list[list[str]]:
    """What the tasks of a night run, in order."""
    options = [f"--lake={lake}", f"--store={store}", f"--as-of={AS_OF}", *(f"--set={pair}" for pair in SETTINGS)]
    stages = []
    for stage in STAGES:
        if stage.sharded:
            stages += [["stage", stage.name, *options, f"--shard={shard}"] for shard in range(2)]
        stages.append(["stage", stage.name, *options])
    return [["preflight", *options], *stages, ["stage", PUBLISH, *options]]


def in_series(lake: Path, store: Path) -> float:
    """Seconds of the commands, one after another."""
    start = time.perf_counter()
    for words in commands(lake, store):
        command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def in_airflow(folder: Path, lake: Path, store: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the run, and of each task by itself as Airflow tells them."""
    store.mkdir()
    variables = {"PYMK_LAKE": str(lake), "PYMK_STORE": str(store), "AIRFLOW__CORE__PARALLELISM": "1"}
    with Airflow(folder / "airflow", variables) as airflow:
        form = {"as_of": AS_OF, "settings": list(SETTINGS)}
        airflow.command("dags", "unpause", "pymk_nightly")
        made = airflow.api("dags/pymk_nightly/dagRuns", {"logical_date": None, "conf": form, "dag_run_id": "measured"})
        states = airflow.finished("pymk_nightly", [made["dag_run_id"]], within_s=3600)
        if set(states.values()) != {"success"}:
            raise RuntimeError(f"the run failed: {states}; logs are in {airflow.home}/logs")
        (run,) = airflow.runs("pymk_nightly", dag_run_id=made["dag_run_id"])
        tasks = airflow.tasks("pymk_nightly", made["dag_run_id"])
    return seconds(run), {name: seconds(task) for name, task in tasks.items() if task["end_date"]}


def seconds(of: dict[str, str]) -> float:
    start, end = (datetime.fromisoformat(of[key]) for key in ("start_date", "end_date"))
    return (end - start).total_seconds()


def parsing(repeats: int) -> dict[str, float]:
    """Median seconds of `import airflow.sdk` and of parsing all DAGs."""
    all_dags = "import " + ", ".join(sorted(path.stem for path in DAGS.glob("*.py")))
    took: dict[str, list[float]] = {SDK: [], all_dags: []}
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"AIRFLOW_HOME": home, "PYTHONPATH": f"{DAGS}{os.pathsep}{Path.cwd()}"}
        for _ in range(repeats):
            for code, times in took.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], env=environment, check=True)
                times.append(time.perf_counter() - start)
    sdk, dags = (statistics.median(times) for times in took.values())
    return {"import_airflow_sdk_s": sdk, "all_dags_s": dags, "ratio": dags / sdk, "goal": GOAL_PARSE}


def night(users: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pymk-airflow-") as place:
        folder = Path(place)
        lake = folder / "lake"
        sample = ["sample", "--users", str(users), "--lake", str(lake)]
        subprocess.run([sys.executable, "-m", "jobs.cli", *sample], check=True, stdout=subprocess.DEVNULL)
        in_series(lake, folder / "warm")  # compiled kernels, which either would have to make first
        series = in_series(lake, folder / "series")
        run, tasks = in_airflow(folder, lake, folder / "store")
    number = len(tasks) + 1  # build_shard is two
    added = (run - series) / number
    return {"users": users, "series_s": series, "run_s": run, "tasks": number, "added_s_a_task": added, "goal": GOAL_S}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--parse", action="store_true", help="only the time of parsing")
    chosen = parser.parse_args(arguments)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Airflow {version('apache-airflow')}, Python {sys.version.split()[0]}", flush=True)
    print(json.dumps({"parsing": parsing(chosen.repeats)}), flush=True)
    if not chosen.parse:
        print(json.dumps({"night": night(chosen.users)}), flush=True)


if __name__ == "__main__":
    main()
