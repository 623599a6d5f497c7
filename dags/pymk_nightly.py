"""
### People You May Know, every night

Reads the lake as it was at 00:00 UTC of the run's day and publishes one release: one task a stage, each the same
`pymk stage` that a person would type.

**A task failed.** Its log ends with what went wrong and how to fix it. Clear the task: finished stages are found by
their id, not done again. Exit code 3 in `publish` is a gate that refused; the release before it stays served, and
`pymk report` shows the metrics that it saw.

**A night is missing.** Trigger the DAG with `as_of` set to its date, or backfill the range. An older date never
replaces a newer release.

**The answers are bad.** `pymk release rollback --store $PYMK_STORE`: every server follows within a second.

Workers need `PYMK_LAKE`, `PYMK_STORE` and, if there is a settings file, `PYMK_CONFIG` in their environment.
"""

from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task
from stage_task import run_stage

from jobs.stages import PUBLISH, STAGES

GRAPH = "build_graph"

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        title="As of",
        description="Date or RFC 3339 time; empty: 00:00 UTC of the run's day. Only facts before it exist.",
    ),
    "settings": Param(
        [],
        type="array",
        items={"type": "string", "pattern": r"^[a-z_]+\.[a-z_0-9]+=.*$"},
        title="Settings",
        description="section.key=value, one a line; `pymk config show` lists them.",
    ),
}


@task(multiple_outputs=False)
def build_graph() -> dict:
    return run_stage(GRAPH)


@task(multiple_outputs=False)
def shard_numbers(graph: dict) -> list[int]:
    return list(range(graph["index_shards"]))


@task(multiple_outputs=False)
def build_shard(shard: int, graph: dict) -> dict:
    return run_stage("build_index", [f"--graph={graph['artifact_id']}", f"--shard={shard}"])


@task(multiple_outputs=False)
def run_one(name: str, graph: dict) -> dict:
    return run_stage(name, [f"--graph={graph['artifact_id']}"])


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["pymk"],
    doc_md=__doc__,
    default_args={"owner": "ml-platform", "retries": 2, "retry_delay": timedelta(minutes=2)},
)
def pymk_nightly() -> None:
    graph = build_graph()
    before = graph
    for stage in STAGES[1:]:
        if stage.sharded:
            shards = build_shard.partial(graph=graph).expand(shard=shard_numbers(graph))
            before >> shards
            before = shards
        after = run_one.override(task_id=stage.name)(stage.name, graph)
        before >> after
        before = after
    before >> run_one.override(task_id=PUBLISH)(PUBLISH, graph)


pymk_nightly()
