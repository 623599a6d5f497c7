"""
### New people and new facts, twice an hour

Exports live events into the lake and publishes a small release on top of the last night's: people who joined get their
lists, and lists of people with new friends, blocks or dismissals are made anew. Everybody else's stay as they are. A
run knows what happened before its scheduled time: who joins waits at most half an hour and the time of a run.

**Late** (alert after 25 minutes). A night that reads the lake holds the pool `pymk_lake`; the run waits for it. A run
that is missed needs no repair: the next one holds all facts since the night.

**It failed.** People who joined wait half an hour longer, nothing else: answers come from the release before. Clear the
task once mended.

**The answers are bad.** Trigger `pymk_rollback`, with the night's release where the hour itself is at fault, and pause
this DAG until it is mended; with *Leave the night* where the night is, whose hours then are published no more.
"""

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag, get_current_context, task
from pymk_tasks import forms
from pymk_tasks.alerts import deadline
from pymk_tasks.commands import as_of_option, place_options, run_pymk, settings_options
from pymk_tasks.defaults import common
from pymk_tasks.stages import ALL_PLACES, LAKE_POOL, export_events, hand_over, tell_release


@task(
    multiple_outputs=False,
    pool=LAKE_POOL,
    trigger_rule="none_failed",
    execution_timeout=timedelta(minutes=50),
    doc_md="What happened since the night, as a release on top of the night's.",
)
def hourly() -> dict:
    context = get_current_context()
    options = [*place_options(*ALL_PLACES), as_of_option(context, "five minutes"), *settings_options(context["params"])]
    made = run_pymk("hourly", *options)
    tell_release(made)
    return made


@dag(
    schedule=CronTriggerTimetable("5,35 * * * *", timezone="UTC"),
    deadline=deadline("pymk_hourly", minutes=25),
    params={"as_of": forms.as_of("the time, on 5 minutes,"), "settings": forms.settings()},
    **common(("release",), __doc__, priority=10),  # before the nights of a backfill
)
def pymk_hourly() -> None:
    made = hourly()
    export_events() >> made
    hand_over(made)


pymk_hourly()
