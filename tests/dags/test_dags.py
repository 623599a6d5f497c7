"""DAG integrity: they import, stay light, wire every stage in order, and name what a person needs."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from jobs.stages import STAGES

DAGS = Path(__file__).parents[2] / "dags"
HEAVY = ("torch", "torch_geometric", "pyspark", "numpy", "pandas", "pyarrow", "faiss", "jobs.pipeline")
NAMES = ("pymk_nightly", "pymk_weekly", "pymk_hourly", "pymk_rollback", "pymk_clean")
BY_FORM = ("pymk_rollback", "pymk_clean")


def in_dags_folder(code: str, home: Path, **variables: str) -> Any:
    """What the code, run where DAGs are parsed, prints last, as JSON."""
    environment = os.environ | {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(DAGS)} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    code = f"""
import importlib, json, sys
modules = {{name: importlib.import_module(name) for name in {NAMES!r}}}
heavy = [m for m in {HEAVY!r} if m in sys.modules]
from airflow.serialization.serialized_objects import DagSerialization
dags = {{name: getattr(module, name)() for name, module in modules.items()}}
print(json.dumps({{"heavy": heavy, "dags": {{name: {{
    "tasks": {{t.task_id: sorted(t.upstream_task_ids) for t in dag.tasks}},
    "owners": sorted({{t.owner for t in dag.tasks}}),
    "retries": min(t.retries for t in dag.tasks),
    "backoff": min(t.retry_exponential_backoff for t in dag.tasks),
    "untimed": [t.task_id for t in dag.tasks if not t.execution_timeout and t.task_id != "shard_numbers"],
    "mute": [t.task_id for t in dag.tasks if not t.on_failure_callback],
    "pools": sorted({{t.pool for t in dag.tasks}}),
    "doc": dag.doc_md,
    "tags": sorted(dag.tags),
    "params": {{name: dag.params.get_param(name).schema for name in dag.params}},
    "deadline": dag.deadline[0].interval.total_seconds() if dag.deadline else None,
    "outlets": {{t.task_id: [o.name for o in t.outlets] for t in dag.tasks if t.outlets}},
    "serialized": bool(DagSerialization.to_dict(dag)),
}} for name, dag in dags.items()}}}}))
"""
    return in_dags_folder(code, tmp_path_factory.mktemp("airflow"))


def test_parsing_loads_no_engine(found: Any) -> None:
    assert found["heavy"] == []


def test_dags_import_the_list_of_stages_and_in_a_task_the_settings_and_nothing_else_of_the_project() -> None:
    rooms = {"infra", "index", "gnn", "jobs", "lookup_api", "tests", "benchmarks"}
    found = {True: set(), False: set()}  # by whether a file imports it as it is parsed
    for path in DAGS.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            found[node in tree.body] |= {name for name in named if name.split(".")[0] in rooms}
    assert found == {True: {"jobs.stages"}, False: {"infra.settings"}}


def test_every_dag_file_is_looked_at() -> None:
    assert sorted(path.stem for path in DAGS.glob("*.py")) == sorted(NAMES)


@pytest.mark.parametrize("name", ["pymk_nightly", "pymk_weekly"])
def test_every_stage_is_a_task_after_the_one_before(found: Any, name: str) -> None:
    tasks = found["dags"][name]["tasks"]
    names = [stage.name for stage in STAGES]
    for before, after in zip(names, [*names[1:], "publish"], strict=True):
        wanted = "build_shard" if after == "build_index" else before
        assert wanted in tasks[after], after
    assert "embed" in tasks["build_shard"]
    assert tasks["preflight"] == []
    assert (tasks["export_events"], tasks["build_graph"], tasks["hand_over"]) == (
        ["preflight"],
        ["export_events"],
        ["publish"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_owned_retried_timed_watched_and_explained(found: Any, name: str) -> None:
    dag = found["dags"][name]
    assert dag["owners"] == ["ml-platform"]
    assert dag["retries"] >= 3
    assert dag["backoff"] == 2
    assert (dag["untimed"], dag["mute"]) == ([], [])
    assert "pymk" in dag["tags"]
    assert len(dag["doc"]) > 400
    assert dag["serialized"]


@pytest.mark.parametrize("name", NAMES)
def test_scheduled_dags_have_a_deadline_and_those_by_form_a_reason(found: Any, name: str) -> None:
    dag = found["dags"][name]
    assert (dag["deadline"] is None) == (name in BY_FORM)
    if name in BY_FORM:
        assert dag["params"]["reason"]["minLength"] == 3


@pytest.mark.parametrize("intervals", ["False", "True"])
def test_a_run_is_of_the_time_it_starts_at_however_airflow_is_configured(intervals: str, tmp_path: Path) -> None:
    """What Airflow makes of a bare cron string starts a day late where `create_cron_data_intervals` is set."""
    code = f"""
import importlib, json
from airflow.serialization.serialized_objects import DagSerialization
schedules = {{}}
for name in {NAMES!r}:
    made = DagSerialization.to_dict(getattr(importlib.import_module(name), name)())["dag"]["timetable"]
    told = made["__var"]
    schedules[name] = [made["__type"].split(".")[-1], told.get("expression"), told.get("timezone")]
print(json.dumps(schedules))
"""
    found = in_dags_folder(code, tmp_path, AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS=intervals)
    assert found == {
        "pymk_nightly": ["CronTriggerTimetable", "0 2 * * *", "UTC"],
        "pymk_weekly": ["CronTriggerTimetable", "0 5 * * 0", "UTC"],
        "pymk_hourly": ["CronTriggerTimetable", "5,35 * * * *", "UTC"],
        "pymk_rollback": ["NullTimetable", None, None],
        "pymk_clean": ["NullTimetable", None, None],
    }


def test_a_release_that_is_served_is_an_asset(found: Any) -> None:
    outlets = {name: found["dags"][name]["outlets"] for name in NAMES if name != "pymk_clean"}
    assert all(out == {"hand_over": ["pymk_release"]} for out in outlets.values())


def test_every_pool_can_be_imported(found: Any) -> None:
    used = {pool for dag in found["dags"].values() for pool in dag["pools"]}
    assert used == {"default_pool", *json.loads((DAGS / "pools.json").read_text())}


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (
            "as_of",
            ["2026-01-01", "2026-01-01T06:00:00Z", "2026-01-01T06:00+02:00"],
            ["yesterday", "2026-01-01; rm -r /"],
        ),
        ("warm_start", ["20260101T000000Z-0123456789abcdef"], ["../../etc", "20260101T000000Z-0123456789abcdeg"]),
        ("reason", ["", "the cat's fault; $(true)"], ["two\nlines", "\x00"]),
    ],
)
def test_a_form_refuses_what_is_no_such_value(found: Any, field: str, good: list[str], bad: list[str]) -> None:
    pattern = found["dags"]["pymk_nightly"]["params"][field]["pattern"]
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)


def test_a_form_changes_what_a_release_holds_but_not_where_things_are_or_run(found: Any) -> None:
    pattern = found["dags"]["pymk_nightly"]["params"]["settings"]["items"]["pattern"]
    places = {"spark", "api", "events", "ladder", "leaves", "models", "shadows", "store"}
    for section in Settings.model_fields:
        assert bool(re.search(pattern, f"{section}.key=1")) == (section not in places), section
    assert not re.search(pattern, "--lake=/etc")


def test_a_run_knows_its_day_or_five_minutes_in_utc(tmp_path: Path) -> None:
    code = """
import json
from datetime import datetime, timezone, timedelta
from pymk_tasks.commands import floor
east = timezone(timedelta(hours=5))
times = [datetime(2026, 1, 2, 2, 34, 59, tzinfo=zone) for zone in (timezone.utc, east)]
print(json.dumps([floor(time, unit) for unit in ("day", "five minutes") for time in times]))
"""
    assert in_dags_folder(code, tmp_path) == [
        "2026-01-02T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "2026-01-02T02:30:00Z",
        "2026-01-01T21:30:00Z",
    ]
