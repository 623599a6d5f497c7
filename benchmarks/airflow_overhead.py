"""What Airflow adds: `python -m benchmarks.airflow_overhead [--users N] [--parse]`.

A night of generated users, once as the commands that its tasks run, in the same words, one after another, and once as
a run of pymk_nightly on a real `airflow standalone` with one task at a time. What Airflow adds is the difference of the
wall times, of the run from its start to its end, over the commands: tasks that run none cost what they do, and are not
counted. --parse: the time to parse all DAGs beside that to import airflow.sdk, each in a new process, in turns. Ends
with exit code 1 where a goal is missed.
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
from typing import Any

from jobs.stages import PUBLISH, STAGES
from tests.suites.airflow import DAGS, Airflow

AS_OF = "2026-01-01"
SETTINGS = ("encoder.max_steps=60", "index.min_recall=0.5")
GOAL_S, GOAL_PARSE = 10.0, 1.5
SDK = "import airflow.sdk"


def in_series(lake: Path, store: Path) -> tuple[float, int]:
    """Seconds of the commands that the tasks of a night run, one after another, in the words of the tasks; how many."""
    options = [f"--lake={lake}", f"--store={store}", f"--as-of={AS_OF}", *(f"--set={pair}" for pair in SETTINGS)]
    start = time.perf_counter()
    pymk("preflight", *options)
    made = pymk("stage", STAGES[0].name, *options)
    options.append(f"--graph={made['artifact_id']}")
    words = []
    for stage in STAGES[1:]:
        if stage.sharded:
            words += [[stage.name, f"--shard={shard}"] for shard in range(made["index_shards"])]
        words.append([stage.name])
    for name, *own in [*words, [PUBLISH]]:
        pymk("stage", name, *options, *own)
    return time.perf_counter() - start, len(words) + 3


def pymk(*words: str) -> dict[str, Any]:
    """What a command of a process of its own prints."""
    command = [sys.executable, "-m", "jobs.cli", *words, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return dict(json.loads(done.stdout))


def in_airflow(folder: Path, lake: Path, store: Path) -> float:
    """Seconds of the run, as Airflow tells them."""
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
    start, end = (datetime.fromisoformat(run[key]) for key in ("start_date", "end_date"))
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
        pymk("sample", f"--users={users}", f"--lake={lake}")
        in_series(lake, folder / "warm")  # compiled kernels, which either would have to make first
        series, number = in_series(lake, folder / "series")
        run = in_airflow(folder, lake, folder / "store")
    return {
        "users": users,
        "series_s": series,
        "run_s": run,
        "commands": number,
        "added_s_a_command": (run - series) / number,
        "goal": GOAL_S,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--parse", action="store_true", help="only the time of parsing")
    chosen = parser.parse_args(arguments)
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Airflow {version('apache-airflow')}, Python {sys.version.split()[0]}", flush=True)
    parsed = parsing(chosen.repeats)
    print(json.dumps({"parsing": parsed}), flush=True)
    met = parsed["ratio"] <= GOAL_PARSE
    if not chosen.parse:
        made = night(chosen.users)
        print(json.dumps({"night": made}), flush=True)
        met &= made["added_s_a_command"] <= GOAL_S
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
