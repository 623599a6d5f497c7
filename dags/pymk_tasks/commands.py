"""Runs `pymk` commands as processes of their own: progress in the task log, the result as JSON, an end to all of it."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

LAKE, STORE, CONFIG = "PYMK_LAKE", "PYMK_STORE", "PYMK_CONFIG"
RUN_ID = "PYMK_RUN_ID"
LINKS = "PYMK_STORE_URL"
"""Address under which people's browsers reach the files of the store, if any do."""
USAGE, REFUSED = 2, 3
NOT_WORTH_A_RETRY = {USAGE: "wrong arguments or settings", REFUSED: "a gate refused"}
PROCESS_TREE = ("-m", "jobs.process_tree")
PYMK = ("-m", "jobs.cli")
SECONDS = {"day": 86_400, "five minutes": 300}
END_S = 15.0
"""Longer than jobs.process_tree takes to end a command."""

log = logging.getLogger(__name__)


def run_pymk(*words: str) -> dict[str, Any]:
    """Runs `pymk WORDS --json` and returns its JSON object.

    Its processes end with the task, however that one ends. Raises AirflowFailException where a retry cannot help and
    AirflowException otherwise.
    """
    command = [sys.executable, *PYMK, *words, "--json"]
    log.info("pymk %s", " ".join(words))
    with tempfile.TemporaryFile("w+") as printed:
        code = _streamed([sys.executable, *PROCESS_TREE, *command], printed.fileno())
        printed.seek(0)
        text = printed.read()
    if code == 0:
        return json.loads(text)
    said = json.loads(text)["error"] if text.startswith("{") else {"what": "see the log above", "fix": ""}
    message = f"pymk {words[0]} ended with exit code {code}: {said['what']}. {said['fix']}"
    if code in NOT_WORTH_A_RETRY:
        raise AirflowFailException(f"{message} ({NOT_WORTH_A_RETRY[code]})")
    raise AirflowException(message)


def _streamed(command: Sequence[str], stdout: int) -> int:
    """The exit code; standard error goes to the task log line by line."""
    context = get_current_context()
    environment = os.environ | {RUN_ID: run_id(context), "NO_COLOR": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end tells jobs.process_tree that this task is gone
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # so that a kill of the task's own processes leaves who ends the command's
    ) as process:
        context["task"].on_kill = process.terminate
        try:
            for line in process.stderr or ():
                log.log(logging.WARNING if "warning" in line else logging.INFO, "%s", line.rstrip())
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait(END_S)
            raise


def run_id(context: Mapping[str, Any]) -> str:
    """The run and who asked for it, for the records of the store."""
    run = context["dag_run"]
    who = getattr(run, "triggering_user_name", None)
    return f"{run.dag_id}/{run.run_id}" + (f" by {who}" if who else "")


def place_options(*variables: str) -> list[str]:
    """Options of the lake, the store and the settings file, from the worker's environment."""
    options = [f"--{name.removeprefix('PYMK_').lower()}={_required(name)}" for name in variables if name != CONFIG]
    if CONFIG in variables and (config := os.environ.get(CONFIG)):
        options.append(f"--config={config}")
    return options


def settings_options(params: Mapping[str, Any], always: Sequence[str] = ()) -> list[str]:
    """Options of the form's settings; `always` come last and so win."""
    warm_start = [f"encoder.warm_start={params['warm_start']}"] if params.get("warm_start") else []
    return [f"--set={pair}" for pair in (*(params.get("settings") or ()), *warm_start, *always)]


def as_of_option(context: Mapping[str, Any], unit: str = "day") -> str:
    """The form's as-of, else 00:00 UTC of the run's day, or its time on 5 minutes."""
    run, given = context["dag_run"], context["params"].get("as_of")
    if given and run.run_type == "backfill":
        raise AirflowFailException("as_of: a backfill makes the release of each of its dates. Leave as_of empty.")
    as_of = given or floor(run.logical_date or run.run_after, unit)
    if is_to_come(as_of):
        fix = "No night before then would replace its release. Trigger again with a time that is past."
        raise AirflowFailException(f"as_of: {as_of} is to come. {fix}")
    return f"--as-of={as_of}"


def is_to_come(text: str) -> bool:
    """Whether a date or an RFC 3339 time is later than now. False for what is neither, which the command refuses."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return (time if time.tzinfo else time.replace(tzinfo=UTC)) > datetime.now(UTC)


def floor(time: datetime, unit: str) -> str:
    """The start of the UTC day of `time`, or of its five minutes: what a run of then knows."""
    seconds = SECONDS[unit]
    return f"{datetime.fromtimestamp(time.timestamp() // seconds * seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def force_options(params: Mapping[str, Any]) -> list[str]:
    """Raises AirflowFailException for force without a reason."""
    if not params.get("force"):
        return []
    if not (params.get("reason") or "").strip():
        raise AirflowFailException("force: needs a reason, which is kept beside the release. Trigger again with one.")
    return ["--force", f"--reason={params['reason']}"]


def settings() -> Any:
    """infra.settings.Settings of the settings file and the worker's environment."""
    from infra.settings import load

    return load(os.environ.get(CONFIG))[0]


def store_link(path: str) -> str:
    """Where a person finds a file of the store."""
    return f"{(os.environ.get(LINKS) or _required(STORE)).rstrip('/')}/{path}"


def _required(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise AirflowFailException(f"{variable} is not set in the worker's environment. Set it and clear the task.")
    return value
