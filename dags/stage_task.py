"""Runs one `pymk stage` as a process of its own, its progress in the task log, its result as XCom."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

NOT_WORTH_A_RETRY = {2: "wrong arguments or settings", 3: "a gate refused"}

log = logging.getLogger(__name__)


def run_stage(name: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Runs `pymk stage NAME` for the run's as-of and settings and returns its JSON result.

    The lake, the store and the settings file come from PYMK_LAKE, PYMK_STORE and PYMK_CONFIG of the worker. Raises
    AirflowFailException where a retry cannot help and AirflowException otherwise.
    """
    context = get_current_context()
    params, dag_run = context["params"], context["dag_run"]
    as_of = params["as_of"] or midnight(dag_run.logical_date or dag_run.run_after)
    command = [sys.executable, "-m", "jobs.cli", "stage", name, "--json", f"--as-of={as_of}"]
    command += [f"--lake={_required('PYMK_LAKE')}", f"--store={_required('PYMK_STORE')}"]
    if config := os.environ.get("PYMK_CONFIG"):
        command += [f"--config={config}"]
    command += [f"--set={pair}" for pair in params["settings"] or ()]
    return _run([*command, *options], name)


def midnight(time: datetime) -> str:
    """00:00 UTC of the day of `time`: what a nightly run of that day knows."""
    return f"{time.astimezone(UTC):%Y-%m-%d}T00:00:00Z"


def _run(command: list[str], name: str) -> dict[str, Any]:
    """Streams stderr to the task log while the process runs; stdout is small and read at the end."""
    log.info("%s", " ".join(command))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr or ():
                log.info("%s", line.rstrip())
            printed = process.stdout.read() if process.stdout else ""
        except BaseException:
            process.terminate()
            raise
    if process.returncode == 0:
        return json.loads(printed)
    said = json.loads(printed)["error"] if printed.startswith("{") else {"what": "see the log above", "fix": ""}
    message = f"pymk stage {name} ended with exit code {process.returncode}: {said['what']}. {said['fix']}"
    if process.returncode in NOT_WORTH_A_RETRY:
        raise AirflowFailException(f"{message} ({NOT_WORTH_A_RETRY[process.returncode]})")
    raise AirflowException(message)


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise AirflowFailException(f"{variable} is not set in the worker's environment")
    return value
