"""What tasks do with what a form says, how they end what they started, and what is told of a failure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags.test_dags import DAGS
from tests.jobs.test_process_tree import runs
from tests.suites.webhook import opened_inbox

PRELUDE = """
import json, logging, sys
from types import SimpleNamespace as Namespace
from datetime import datetime, timezone
import pymk_tasks.commands as commands
run = Namespace(dag_id="pymk_nightly", run_id="manual__1", run_type="manual", triggering_user_name="ada",
    logical_date=datetime(2026, 1, 2, 2, tzinfo=timezone.utc), run_after=None)
context = {"dag_run": run, "params": {}, "task": Namespace()}
commands.get_current_context = lambda: context
said = sys.stdout  # Airflow's logging writes there too
def answer(*words):
    print("ANSWER", *words, file=said, flush=True)
"""


def answers(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if line.startswith("ANSWER ")]


def run(code: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(DAGS)} | variables
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], env=environment, capture_output=True, text=True, check=False
    )


def test_form_values_are_arguments_and_nothing_else(tmp_path: Path) -> None:
    code = """
from airflow.sdk.exceptions import AirflowFailException
params = {"settings": ["rank.blend=$(touch hacked)"], "warm_start": "X", "force": True, "reason": "; touch hacked"}
words = [*commands.settings_options(params, ["encoder.warm_start="]), *commands.force_options(params)]
for bad in ({"force": True, "reason": "  "}, {"force": True}):
    try:
        commands.force_options(bad)
    except AirflowFailException as error:
        words.append(str(error)[:24])
context["params"] = {"as_of": "2026-01-01"}
run.run_type = "backfill"
try:
    commands.as_of_option(context)
except AirflowFailException as error:
    words.append(str(error)[:17])
answer(json.dumps(words))
"""
    assert json.loads(*answers(run(code, tmp_path))) == [
        "--set=rank.blend=$(touch hacked)",
        "--set=encoder.warm_start=X",
        "--set=encoder.warm_start=",
        "--force",
        "--reason=; touch hacked",
        *["force: needs a reason, wh"[:24]] * 2,
        "as_of: a backfill",
    ]


def test_a_time_that_is_to_come_is_refused(tmp_path: Path) -> None:
    """No later night would replace its release."""
    code = """
from datetime import timedelta
from airflow.sdk.exceptions import AirflowFailException
now = datetime.now(timezone.utc)
def refused():
    try:
        return commands.as_of_option(context).partition("=")[2]
    except AirflowFailException as error:
        return "refused" if "is to come. No night before then" in str(error) else error
forms = ("2062-01-01", "2062-01-01T00:00:00+02:00", f"{now + timedelta(minutes=9):%Y-%m-%dT%H:%M:%SZ}")
for as_of in (*forms, "2026-01-01", "2026-01-01T06:00Z", "2026-13-45", None):
    context["params"] = {"as_of": as_of}
    answer(refused())
run.logical_date = now + timedelta(days=1, minutes=9)
answer(refused())
"""
    assert answers(run(code, tmp_path)) == [
        *["refused"] * 3,
        "2026-01-01",
        "2026-01-01T06:00Z",
        "2026-13-45",
        "2026-01-02T00:00:00Z",
        "refused",
    ]


def test_a_command_gives_its_json_its_progress_and_its_error(tmp_path: Path) -> None:
    code = """
from airflow.sdk.exceptions import AirflowException, AirflowFailException
answer(len(commands.run_pymk("config", "show")))
for words, kind in ((["release", "list", "--store=/nowhere/at/all"], AirflowException),
                    (["stage", "nonsense", "--lake=x", "--store=y", "--as-of=2026-01-01"], AirflowFailException)):
    try:
        commands.run_pymk(*words)
    except AirflowException as error:
        assert type(error) is kind, error
        answer(error)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    settings, missing, wrong = answers(done)
    assert int(settings) > 0
    assert "no such folder" in missing
    assert "Stages: build_graph" in wrong
    assert "pymk release list" in done.stdout


@pytest.mark.parametrize("way", ["on_kill", "timeout"])
def test_a_task_that_is_ended_leaves_no_process(way: str, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('warning: started', os.getpid(), child.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(600)\n"
    )
    code = f"""
import os, signal
commands.PYMK = ({str(script)!r},)
def end(*_):
    if {way == "on_kill"}:
        context["task"].on_kill()
    else:
        raise TimeoutError("too long")
class Watch(logging.Handler):
    def emit(self, record):
        if "started" in record.getMessage():
            answer(record.getMessage())
            os.kill(os.getpid(), signal.SIGALRM)
commands.log.addHandler(Watch())
signal.signal(signal.SIGALRM, end)
try:
    commands.run_pymk("x")
except Exception as error:
    answer(type(error).__name__, error)
"""
    done = run(code, tmp_path)
    started, ended = answers(done)
    assert ("143" if way == "on_kill" else "TimeoutError") in ended
    assert not [pid for pid in map(int, started.split()[2:]) if runs(pid)]
    if way == "on_kill":
        assert "[warning" in done.stdout


HAND_OVER = """
from airflow.sdk.exceptions import AirflowSkipException
import pymk_tasks.stages as stages
ran, told, current = [], Namespace(extra=None), []
stages.get_current_context = lambda: {"outlet_events": {stages.RELEASE: told}}
def pymk(*words):
    ran.append(" ".join(words))
    return {"served": current[-1], "release_id": current[-1]}
stages.run_pymk = pymk
for now, made in (
    ("R", {"release_id": "R", "published": False, "said": "older"}),
    ("R", {"release_id": "R", "published": True}),
    ("D", {"release_id": "R", "published": True, "served": "D"}),
    ("S", {"release_id": "R", "published": True}),
):
    current.append(now)
    try:
        stages.hand_over.function(made)
        answer(*ran, "|", told.extra["release_id"])
    except AirflowSkipException as skipped:
        answer(*ran, "|", skipped)
    ran.clear()
"""
PLACES = {"PYMK_STORE": "/store", "PYMK_LAKE": "/lake"}


def test_a_release_that_the_form_names_is_published_as_it_was_made(tmp_path: Path) -> None:
    code = """
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
import pymk_tasks.stages as stages
stages.get_current_context = lambda: context
stages.run_pymk = lambda *words: answer(*words) or {"release_id": "R", "said": "published", "published": True}
def tried(task, *inputs):
    try:
        task.function(*inputs)
    except (AirflowFailException, AirflowSkipException) as error:
        answer(task.function.__name__, type(error).__name__)
context["params"] = {"release": "R", "force": True, "reason": "new school year"}
tried(stages.preflight, [])
tried(stages.first_stage, [])
tried(stages.publish, None, [])
for params, kind in (({"as_of": "2026-01-01"}, "manual"), ({"settings": ["rank.top=1"]}, "manual"), ({}, "backfill")):
    context["params"], run.run_type = {"release": "R"} | params, kind
    tried(stages.preflight, [])
"""
    places = {"PYMK_STORE": "/store", "PYMK_LAKE": "/lake", "PYMK_CONFIG": "/pymk.toml"}
    assert answers(run(code, tmp_path, **places)) == [
        "preflight AirflowSkipException",
        "first_stage AirflowSkipException",
        "release publish R --lake=/lake --store=/store --config=/pymk.toml --force --reason=new school year",
        *["preflight AirflowFailException"] * 3,
    ]


def test_the_log_links_what_made_a_release_and_the_delta_on_it_that_is_served(tmp_path: Path) -> None:
    code = """
import pymk_tasks.stages as stages
stages.log.info = lambda line, *values: answer(line % values)
stages.tell_release({"release_id": "N", "said": "published", "published": True, "served": "N"})
stages.tell_release({"release_id": "N", "said": "carried", "published": True, "served": "D"})
stages.tell_release({"release_id": "N", "said": "older", "published": False, "served": "D"})
"""
    own = "what made N: https://store/releases/N/lineage.json"
    assert answers(run(code, tmp_path, PYMK_STORE_URL="https://store")) == [
        *("release N: published", own),
        *("release N: carried", own, "what made D: https://store/releases/D/lineage.json"),
        *("release N: older", own),
    ]


def test_what_is_served_is_loaded_where_tables_are_shared_and_told(tmp_path: Path) -> None:
    assert answers(run(HAND_OVER, tmp_path, **PLACES, PYMK_API__TABLES="redis://host:1/0")) == [
        "| R is not served: older",
        "release load R --if-current --store=/store | R",
        "release load D --if-current --store=/store | D",
        "release load R --if-current --store=/store | R is not served any more: S is, and was or will be handed over",
    ]


def test_what_is_not_served_any_more_is_not_told(tmp_path: Path) -> None:
    """A task of yesterday is cleared."""
    assert answers(run(HAND_OVER, tmp_path, **PLACES))[1:] == [
        "release show --store=/store | R",
        "release show --store=/store | D",
        "release show --store=/store | R is not served any more: S is, and was or will be handed over",
    ]


def test_a_failure_and_a_late_run_are_told_to_the_webhook(tmp_path: Path) -> None:
    code = """
from pymk_tasks import alerts
ti = Namespace(dag_id="pymk_nightly", task_id="rank", run_id="manual__1", try_number=4, log_url="http://airflow/log")
alerts.failed({"ti": ti, "exception": ValueError("no room. Free some")})
late = {"dag_id": "pymk_nightly", "dag_run_id": "manual__1", "state": "running", "queued_at": "2026-01-02T02:00:00Z"}
alerts.late({"dag_run": late})
alerts.late({"dag_run": late | {"run_type": "backfill"}})
"""
    with opened_inbox() as inbox:
        done = run(code, tmp_path, PYMK_ALERT_WEBHOOK=inbox.url)
    failed, late = inbox.posted
    assert "pymk_nightly.rank failed: no room. Free some" in failed["text"]
    assert failed["where"] == "run manual__1, try 4, log http://airflow/log"
    assert "runbook" in failed["how_to_fix"]
    assert "pymk_nightly is late" in late["what"]
    assert "secret" not in done.stdout + done.stderr


def test_a_webhook_that_is_away_fails_nothing(tmp_path: Path) -> None:
    code = "from pymk_tasks import alerts; alerts.tell({'what': 'x'}); answer('went on')"
    done = run(code, tmp_path, PYMK_ALERT_WEBHOOK="http://127.0.0.1:9/secret")
    assert answers(done) == ["went on"]
    assert "could not be posted" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_a_deadline_is_of_a_dag_and_can_be_switched_off(tmp_path: Path) -> None:
    code = """
from pymk_tasks.alerts import deadline
for dag, minutes in (("pymk_nightly", 240), ("pymk_weekly", 720), ("pymk_hourly", 50)):
    alert = deadline(dag, minutes)
    answer(dag, alert.interval.total_seconds() if alert else "never")
"""
    done = run(code, tmp_path, PYMK_LATE="pymk_nightly=0,pymk_hourly=0.5")
    assert answers(done) == ["pymk_nightly never", "pymk_weekly 43200.0", "pymk_hourly 30.0"]


def test_cleaning_by_form_reads_the_settings_file_that_nights_read(tmp_path: Path) -> None:
    code = """
import pymk_clean
context["params"] = {"keep": None, "grace_hours": 24, "reason": "disk"}
pymk_clean.get_current_context = lambda: context
pymk_clean.run_pymk = lambda *words: answer(*words)
pymk_clean.clean.function()
"""
    said = "release clean --store=/store --config=/pymk.toml --grace-hours=24 --reason=disk"
    assert answers(run(code, tmp_path, PYMK_STORE="/store", PYMK_CONFIG="/pymk.toml")) == [said]


def test_a_rollback_by_form_says_where_to_or_when_it_was_asked_for(tmp_path: Path) -> None:
    code = """
import datetime
import pymk_rollback
context["dag_run"] = Namespace(run_after=datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC))
pymk_rollback.get_current_context = lambda: context
pymk_rollback.run_pymk = lambda *words: answer(*words)
for to, night in (("R", False), (None, True), (None, False)):
    context["params"] = {"to": to, "night": night, "reason": "why"}
    pymk_rollback.rollback.function()
"""
    first, asked = "release rollback --store=/store", "--asked-at=2026-01-02T03:00:00+00:00"
    assert answers(run(code, tmp_path, PYMK_STORE="/store")) == [
        f"{first} --to=R --reason=why",
        f"{first} {asked} --night --reason=why",
        f"{first} {asked} --reason=why",
    ]
