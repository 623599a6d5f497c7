"""
### People You May Know, anew every week

A night whose encoder is trained from scratch, whatever encoder the settings name to start from, and whose index is
built whole on its vectors. Where nights start from an encoder (`encoder.warm_start`), small errors of one night pass to
the next; this run ends the chain. Where they do not, it finds what the night of the same date has made. It replaces the
night of the same date, with all that hours since know carried forward.

**To let the nights after it start from here**: the log of `train_encoder` names the encoder's id; write it to
`encoder.warm_start` of the settings file. Nothing does that by itself, so that a repeated night gives the same release.
Cleaning keeps it as long as it keeps this release or one that starts from it.

All else is as in `pymk_nightly`, whose runbook holds here too. Alert after 12 hours.
"""

from airflow.sdk import CronTriggerTimetable, dag
from pymk_tasks import forms
from pymk_tasks.alerts import deadline
from pymk_tasks.defaults import common
from pymk_tasks.stages import night

FROM_SCRATCH = ("encoder.warm_start=",)


@dag(
    schedule=CronTriggerTimetable("0 5 * * 0", timezone="UTC"),
    deadline=deadline("pymk_weekly", minutes=720),
    params={
        "as_of": forms.as_of("00:00 UTC"),
        "settings": forms.settings(),
        "release": forms.release("one is made. Given: that one is published as it was made."),
        "force": forms.force(),
        "reason": forms.reason(needed=False),
    },
    **common(("release",), __doc__, at_once=3),
)
def pymk_weekly() -> None:
    night(FROM_SCRATCH)


pymk_weekly()
