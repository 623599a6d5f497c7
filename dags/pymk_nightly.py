"""
### People You May Know, every night

Reads the lake as it was at 00:00 UTC of the run's day and publishes one release: one task a stage, each the same
`pymk stage` that a person would type.

**Late** (alert after 4 hours). The page of the run shows the task it waits for. One that stays *scheduled* waits for a
slot of its pool: `airflow pools list` shows `pymk_lake`, `pymk_spark` and `pymk_gpu`, else import `dags/pools.json`.
Until the run ends, the release before stays served.

**`preflight` is tried again.** Inputs are missing, come in part, or a table has far fewer rows than in the release
before; or memory or disk are too little. Its log says which. It waits for two hours, then fails. Where the inputs are
right as they are, trigger with a lower `gates.min_rows_share` among the *Settings*. *Force* would also put an older
date in place of what is served.

**A task failed.** Its log ends with what went wrong and how to fix it. Clear the task: finished stages are found by
their id, not done again. Where it says that the artifact before *is not finished*, pymk was deployed anew meanwhile:
clear the run from `build_graph`.

**`publish` failed with exit code 3.** A gate refused; the release before stays served. The log names the release, and
`pymk report --release ID` shows the metrics it saw. Where the night is right, trigger with its id as *Release*, *Force*
and a reason: that one is published as it was made. Without its id a night is made anew, of the lake as it is by now.

**A night is missing.** Trigger with *As of* set to its date, or *Backfill* a range of dates: up to three at once do not
disturb one another. An older date never replaces a newer release, unless *Force* says so.

**The answers are bad.** Trigger `pymk_rollback` with *Leave the night*: every server follows within a second.

Every setting of the form holds for this run alone. A run depends on its date and settings, never on what another run
left: *Warm start* names the encoder to start from. Workers need `PYMK_LAKE`, `PYMK_STORE` and, if there is a settings
file, `PYMK_CONFIG` in their environment.
"""

from airflow.sdk import CronTriggerTimetable, dag
from pymk_tasks import forms
from pymk_tasks.alerts import deadline
from pymk_tasks.defaults import common
from pymk_tasks.stages import night


@dag(
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    deadline=deadline("pymk_nightly", minutes=240),
    params={
        "as_of": forms.as_of("00:00 UTC"),
        "settings": forms.settings(),
        "warm_start": forms.warm_start(),
        "release": forms.release("one is made. Given: that one is published as it was made."),
        "force": forms.force(),
        "reason": forms.reason(needed=False),
    },
    **common(("release",), __doc__, at_once=3),
)
def pymk_nightly() -> None:
    night()


pymk_nightly()
