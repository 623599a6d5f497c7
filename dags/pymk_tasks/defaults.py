"""What every DAG of pymk has in common."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pymk_tasks.alerts import failed

OWNER = "ml-platform"


def common(tags: tuple[str, ...], runbook: str | None, at_once: int = 1, priority: int = 1) -> dict[str, Any]:
    """Arguments of `dag`. Retries wait 1, 2 and 4 minutes, so that a store that is away for a moment fails nothing.

    at_once: runs that may be under way, and the most that the form of a backfill offers. priority: of its tasks, where
    several wait for a slot of a pool.
    """
    return {
        "start_date": datetime(2025, 1, 1, tzinfo=UTC),
        "catchup": False,
        "max_active_runs": at_once,
        "tags": ["pymk", *tags],
        "doc_md": runbook,
        "default_args": {
            "owner": OWNER,
            "retries": 3,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2,
            "max_retry_delay": timedelta(minutes=15),
            "on_failure_callback": failed,
            "priority_weight": priority,
            "weight_rule": "absolute",
        },
    }
