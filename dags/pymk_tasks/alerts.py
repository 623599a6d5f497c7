"""What is said, and to whom, when a task has failed for good, a run is late, or a night waits for its inputs.

Everything goes to the log; with PYMK_ALERT_WEBHOOK also there, as JSON with `text`, which chat services show.
"""

import json
import logging
import os
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

WEBHOOK = "PYMK_ALERT_WEBHOOK"
WEBHOOK_S = 10.0
LATE = "PYMK_LATE"
"""Variable of minutes by DAG, `pymk_nightly=240,pymk_hourly=25`, over those of the DAG files; 0 for no alert."""

log = logging.getLogger(__name__)


def failed(context: Mapping[str, Any]) -> None:
    """Callback of a task that will not be tried again."""
    tell(_of_task("failed", context))


def waits(context: Mapping[str, Any]) -> None:
    """Callback of a task that will be tried again: for preflight, whose inputs may yet come."""
    tell(_of_task("will be tried again", context))


def late(context: Mapping[str, Any]) -> None:
    """Callback of a run's deadline; the dates of a backfill are queued at once, and late for nobody."""
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    tell(
        {
            "what": f"{run['dag_id']} is late: run {run['dag_run_id']} is {run['state']} since {run['queued_at']}",
            "where": run["dag_run_id"],
            "how_to_fix": "Its page in Airflow shows the task it waits for; a task that stays scheduled waits for a "
            "slot of its pool (`airflow pools list`). Until it ends the release before stays served.",
        }
    )


def deadline(dag_id: str, minutes: float) -> DeadlineAlert | None:
    """An alert where a run has not ended so long after it was queued; none for 0 minutes."""
    given = dict(pair.split("=", 1) for pair in os.environ.get(LATE, "").split(",") if "=" in pair)
    interval = timedelta(minutes=float(given.get(dag_id, minutes)))
    return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, interval, SyncCallback(late)) if interval else None


def tell(said: Mapping[str, str]) -> None:
    """Logs what happened, where and how to fix it, and posts it. A webhook that fails is logged and fails nothing."""
    text = " | ".join(said.values())
    log.error("%s", text)
    url = os.environ.get(WEBHOOK)
    if not url:
        return
    body = json.dumps({"text": text, **said}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_S):
            log.info("posted to %s", WEBHOOK)
    except (OSError, ValueError) as error:  # its address may hold a secret, and stays out of the log
        log.warning("%s: could not be posted to: %s", WEBHOOK, type(error).__name__)


def _of_task(happened: str, context: Mapping[str, Any]) -> dict[str, str]:
    ti, error = context["ti"], context.get("exception")
    return {
        "what": f"{ti.dag_id}.{ti.task_id} {happened}: {error or 'see its log'}",
        "where": f"run {ti.run_id}, try {ti.try_number}, log {getattr(ti, 'log_url', '')}",
        "how_to_fix": f"The runbook of {ti.dag_id} is on its page in Airflow. Clear the task once mended: what is "
        "finished is found by its id.",
    }
