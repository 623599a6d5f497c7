"""
### New people and new facts, every hour

Exports live events into the lake and publishes a small release on top of the last night's: people who joined get their
lists, and lists of people with new friends, blocks or dismissals are made anew. Everybody else's stay as they are.

**Late** (alert after 50 minutes). A night that reads the lake holds the pool `pymk_lake`; the hour waits for it. An
hour that is missed needs no repair: the next one holds all facts since the night.

**It failed.** People who joined wait an hour longer, nothing else: answers come from the release before. Clear the task
once mended.

**The answers are bad.** Trigger `pymk_rollback`, with the night's release where the hour itself is at fault, and pause
this DAG until it is mended.
"""

from datetime import timedelta

from airflow.sdk import dag, get_current_context, task
from pymk_tasks import forms
from pymk_tasks.alerts import deadline
from pymk_tasks.commands import as_of_option, place_options, run_pymk, settings_options
from pymk_tasks.defaults import common
from pymk_tasks.stages import ALL_PLACES, LAKE_POOL, export_events, hand_over


@task(
    multiple_outputs=False,
    pool=LAKE_POOL,
    trigger_rule="none_failed",
    execution_timeout=timedelta(minutes=50),
    doc_md="What happened since the night, as a release on top of the night's.",
)
def hourly() -> dict:
    context = get_current_context()
    options = [*place_options(*ALL_PLACES), as_of_option(context, "hour"), *settings_options(context["params"])]
    return run_pymk("hourly", *options)


@dag(
    schedule="5 * * * *",
    deadline=deadline("pymk_hourly", minutes=50),
    params={"as_of": forms.as_of("the full hour"), "settings": forms.settings()},
    **common(("release",), __doc__),
)
def pymk_hourly() -> None:
    made = hourly()
    export_events() >> made
    hand_over(made)


pymk_hourly()
