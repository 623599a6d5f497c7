"""
### Room in the store

Deletes old releases and what only they use. CURRENT, the release before it, what an open reader holds and the newest
`store.keep_releases` releases always stay, with the encoders that theirs were started from, and so do releases and
artifacts that changed within the hours of grace, as a run may be about to use them. Nothing is deleted while the file
of a release is damaged: put back a copy, or delete it.

The reason is kept in the store, `audit/TIME-clean-….json`, with what was deleted, the run and who triggered it.
"""

from airflow.sdk import Param, dag, get_current_context, task
from pymk_tasks import forms
from pymk_tasks.commands import CONFIG, STORE, place_options, run_pymk
from pymk_tasks.defaults import common
from pymk_tasks.stages import LONG


@task(multiple_outputs=False, execution_timeout=LONG, doc_md="`pymk release clean`")
def clean() -> dict:
    params = get_current_context()["params"]
    keep = [f"--keep={params['keep']}"] if params["keep"] else []
    grace = f"--grace-hours={params['grace_hours']}"
    return run_pymk("release", "clean", *place_options(STORE, CONFIG), *keep, grace, f"--reason={params['reason']}")


@dag(
    schedule=None,
    params={
        "keep": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=10_000,
            title="Keep",
            description="Releases to keep; empty: store.keep_releases.",
        ),
        "grace_hours": Param(
            24,
            type="number",
            minimum=0,
            maximum=100_000,
            title="Grace",
            description="What is younger stays, hours; below what a night takes only while none is made.",
        ),
        "reason": forms.reason(needed=True),
    },
    **common(("repair",), __doc__),
)
def pymk_clean() -> None:
    clean()


pymk_clean()
