"""`make run`: a sample lake, the nightly DAG through Airflow, and the lookup API on its release."""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from infra.errors import PymkError, UsageError
from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.cli_output import console, progress
from jobs.serve import free_address
from jobs.termination import unwind_at_sigterm

USERS = 20_000
AS_OF = "2026-01-01"
HOST = "127.0.0.1"
ENDING_S = 3.0
DAGS = Path(__file__).parents[1] / "dags"
STAGE_LINE = re.compile(r"pymk (\w+: .*?)(?:\[0m)?(?: \[[\w.]+\].*)?$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the answer")
    parser.add_argument("--folder", type=Path, default=Path("run"), help="where lake, store and Airflow's home go")
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--port", type=int, default=8000, help="of the API; `make run PORT=8001` gives it")
    args = parser.parse_args()
    unwind_at_sigterm()  # by default the process would be gone before it could end its children
    # Before the work, and because a server that is there already would give the answer.
    _refuse_taken(args.port)
    lake, store = args.folder.resolve() / "lake", args.folder.resolve() / "store"
    if not lake.exists():
        _pymk("sample", f"--users={args.users}", f"--lake={lake}", f"--end={AS_OF}")
    store.mkdir(exist_ok=True)
    run_nightly(args.folder.resolve() / "airflow", lake, store)
    serve_and_ask(store, args.port, args.once)


def _refuse_taken(port: int) -> None:
    try:
        free_address(HOST, port)
    except UsageError:
        raise
    except PymkError as error:
        raise PymkError(
            error.what, "Stop the server that listens there, or choose another: make run PORT=8001."
        ) from None


def run_nightly(
    home: Path, lake: Path, store: Path, as_of: str = AS_OF, form: Mapping[str, object] | None = None
) -> None:
    """Runs the DAG pymk_nightly once, in an Airflow of its own below `home`; its full log is home/nightly.log.

    form: what would be entered in the UI.
    """
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYMK_LAKE": str(lake),
        "PYMK_STORE": str(store),
        "PYMK_LATE": "pymk_nightly=0",  # `dags test` of Airflow 3.3.2 fails at the end of a DAG with a deadline
    }
    airflow = [sys.executable, "-m", "airflow"]
    with (home / "nightly.log").open("w") as log:
        progress(f"airflow: pymk_nightly for {as_of}, log in {log.name}")
        subprocess.run([*airflow, "db", "migrate"], env=environment, stdout=log, stderr=log, check=True)
        command = [*airflow, "dags", "test", "pymk_nightly", as_of]
        if form:
            command += ["--conf", json.dumps(form)]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                for line in process.stdout or ():
                    log.write(line)
                    if found := STAGE_LINE.search(line.rstrip()):
                        progress(found[1])
            except BaseException:
                end_family(process.pid)
                raise
    if process.returncode:
        raise PymkError(f"the nightly DAG failed with exit code {process.returncode}", f"See {home / 'nightly.log'}.")


def end_family(pid: int) -> None:
    """Ends a process and all that it started: at once, or by force where that takes longer than ENDING_S."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for signal_ in (psutil.Process.terminate, psutil.Process.kill):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                signal_(one)
        _, family = psutil.wait_procs(family, ENDING_S)


def serve_and_ask(store: Path, port: int, once: bool) -> None:
    """Serves the store, asks for one user, prints the request and its answer, and waits for Ctrl-C unless `once`."""
    server = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", "serve", f"--store={store}", f"--host={HOST}", f"--port={port}"]
    )
    try:
        url = f"http://{HOST}:{port}"
        _wait_until_ready(f"{url}/readyz", server)
        url = f"{url}/v1/users/{_someone(store)}/recommendations?limit=1"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)
        print(f"\n$ curl '{url}'\n{json.dumps(found, indent=2)}", flush=True)
        if not once:
            console.print(f"serving; Ctrl-C ends it. How good it is: .venv/bin/pymk report --store {store}")
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_ready(url: str, server: "subprocess.Popen[bytes]", patience_s: float = 60.0) -> None:
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise PymkError(f"the server ended with exit code {server.returncode}", "Its message is above.")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise PymkError(f"{url}: not ready after {patience_s:.0f} s")


def _someone(store: Path) -> Any:
    """A user with a ranking."""
    release = ReleaseStore(open_store(str(store))).current()
    if release is None:
        raise PymkError(f"{store}: nothing was published", "See the log of the nightly DAG.")
    part = min((store / release.artifacts["rankings"].path).glob("*.parquet"))
    return pq.read_table(part, columns=["user_id"])["user_id"][0].as_py()


def _pymk(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], check=True)


if __name__ == "__main__":
    try:
        main()
    except (PymkError, subprocess.CalledProcessError) as error:
        console.print(f"[bold red]error[/bold red] {error}")
        sys.exit(1)
