"""
### Back to an earlier release

Points CURRENT at the release before, or at the one of the form; servers follow within `api.poll_s` seconds, and no
request fails. The release before an hour's is that of the hour before, on the same night: where the night is at fault,
check *Leave the night*. Blocks, dismissals and departures since stay obeyed, as they are live facts. The release that
was left is withdrawn: its own night run again does not bring it back, nor do hours that are made on that night;
`pymk release publish ID --force --reason TEXT` does.

**Before**: `pymk release list --store STORE` shows the releases, oldest first. **After**: find out what was wrong; the
next night publishes again. Pause `pymk_hourly` where its releases are at fault.

A run goes back once: tried again or cleared it goes where it was to go at first, and nowhere where it has been there;
trigger anew to go further. Of two people who trigger it at once the second is refused, unless a release is named. So is
a release with faults, a newer one that was not served before, and any while another night was published meanwhile.

The reason is kept in the store, `audit/TIME-rollback-….json`, with the run and who triggered it.
"""

from airflow.sdk import dag, get_current_context, task
from pymk_tasks import forms
from pymk_tasks.commands import STORE, place_options, run_pymk
from pymk_tasks.defaults import common
from pymk_tasks.stages import SHORT, hand_over


@task(multiple_outputs=False, execution_timeout=SHORT, doc_md="`pymk release rollback`: verifies, then moves CURRENT.")
def rollback() -> dict:
    context = get_current_context()
    params = context["params"]
    to = [f"--to={params['to']}"] if params["to"] else [f"--asked-at={context['dag_run'].run_after.isoformat()}"]
    night = ["--night"] if params["night"] else []
    return run_pymk("release", "rollback", *place_options(STORE), *to, *night, f"--reason={params['reason']}")


@dag(
    schedule=None,
    params={
        "to": forms.release("the one served before."),
        "night": forms.leave_night(),
        "reason": forms.reason(needed=True),
    },
    **common(("repair",), __doc__),
)
def pymk_rollback() -> None:
    hand_over(rollback())


pymk_rollback()
