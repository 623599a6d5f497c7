"""The tasks of a night, each a `pymk` command that a person would type, in order."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import Asset, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from jobs.stages import PUBLISH, STAGES, Stage
from pymk_tasks.alerts import waits
from pymk_tasks.commands import (
    CONFIG,
    LAKE,
    STORE,
    as_of_option,
    force_options,
    log,
    place_options,
    run_pymk,
    settings,
    settings_options,
    store_link,
)

RELEASE = Asset("pymk_release")
"""A release that is served from now on. Extra: release_id."""

LAKE_POOL, SPARK_POOL, GPU_POOL = "pymk_lake", "pymk_spark", "pymk_gpu"
ON_GPU = ("train_encoder", "embed")
GRAPH, REPORT = "build_graph", "evaluate"
ALL_PLACES = (LAKE, STORE, CONFIG)
SHORT, LONG = timedelta(minutes=30), timedelta(hours=6)


def pool_of(stage: Stage) -> str:
    """build_graph reads the whole lake: nobody may write it meanwhile."""
    if stage.name == GRAPH:
        return LAKE_POOL
    if stage.name in ON_GPU:
        return GPU_POOL
    return SPARK_POOL if stage.spark else "default_pool"


@task(
    multiple_outputs=False,
    execution_timeout=SHORT,
    retries=6,
    retry_delay=timedelta(minutes=5),
    max_retry_delay=timedelta(minutes=30),
    on_retry_callback=waits,
    doc_md="Fails in the first minute where inputs are missing, partial or suddenly small, or memory or disk too "
    "little; tried again for two hours, as inputs may yet come.",
)
def preflight(always: Sequence[str]) -> dict:
    context = get_current_context()
    force_options(context["params"])
    skip_for_named(context)
    options = [*place_options(*ALL_PLACES), as_of_option(context), *settings_options(context["params"], always)]
    return run_pymk("preflight", *options, *(["--force"] if context["params"].get("force") else []))


@task(
    multiple_outputs=False,
    pool=LAKE_POOL,
    execution_timeout=LONG,
    doc_md="Live events into the lake. Skipped where there are no live facts, in backfills, and for a given as-of.",
)
def export_events() -> dict:
    context = get_current_context()
    if context["dag_run"].run_type == "backfill" or context["params"].get("as_of"):
        raise AirflowSkipException("the run is of a given date: what happened since is exported by the next one of now")
    if not _has_live_facts():
        raise AirflowSkipException("api.facts is empty and the store has no folder `live`: no events are kept")
    return run_pymk("events", "export", *place_options(*ALL_PLACES))


def skip_for_named(context: Mapping[str, Any]) -> None:
    """Skips what makes a release where the form names one. Raises AirflowFailException for values that say how to."""
    params = context["params"]
    if not params.get("release"):
        return
    if context["dag_run"].run_type == "backfill" or any(
        params.get(name) for name in ("as_of", "settings", "warm_start")
    ):
        fix = "Leave as_of, settings and warm_start empty, and make it a single run."
        raise AirflowFailException(f"release: {params['release']} is published as it was made. {fix}")
    raise AirflowSkipException(f"{params['release']} is published as it was made")


def _has_live_facts() -> bool:
    (option,) = place_options(STORE)
    store = option.removeprefix("--store=")
    parts = urlsplit(store)
    folder = Path(parts.path if parts.scheme == "file" else store).expanduser()
    return bool(settings().api.facts) or (folder / "live").is_dir()


def run_stage(name: str, always: Sequence[str], *options: str) -> dict[str, Any]:
    """Runs `pymk stage NAME` for the run's as-of and settings, and says where what it made is."""
    context = get_current_context()
    params = context["params"]
    words = [*place_options(*ALL_PLACES), as_of_option(context), *settings_options(params, always)]
    made = run_pymk("stage", name, *words, *options)
    if "artifact_id" in made:
        folder = f"{made['kind']}/{made['artifact_id']}"
        log.info("%s: %s rows, %s", name, f"{made['rows']:,}", "found" if made["found"] else "made")
        log.info("manifest: %s", store_link(f"{folder}/manifest.json"))
        if name == REPORT:
            log.info("report: %s", store_link(f"{folder}/data/report.html"))
    return made


@task(multiple_outputs=False)
def first_stage(always: Sequence[str]) -> dict:
    skip_for_named(get_current_context())
    return run_stage(GRAPH, always)


@task(multiple_outputs=False)
def later_stage(name: str, graph: dict, always: Sequence[str]) -> dict:
    return run_stage(name, always, f"--graph={graph['artifact_id']}")


@task(multiple_outputs=False)
def shard_numbers(graph: dict) -> list[int]:
    return list(range(graph["index_shards"]))


@task(multiple_outputs=False, execution_timeout=LONG, doc_md="One shard of the index.")
def build_shard(shard: int, graph: dict, always: Sequence[str]) -> dict:
    return run_stage("build_index", always, f"--graph={graph['artifact_id']}", f"--shard={shard}")


@task(
    multiple_outputs=False,
    pool=LAKE_POOL,  # what hours since knew is carried forward from the lake
    execution_timeout=LONG,
    trigger_rule="none_failed",  # all is skipped where the form names a release
    doc_md="The gates, then CURRENT. Exit code 3 is a gate that refused: nothing was published. An older date leaves "
    "CURRENT where it is, unless the form says force. Of a release that the form names it is all that is done.",
)
def publish(graph: dict | None, always: Sequence[str]) -> dict:
    params = get_current_context()["params"]
    if named := params.get("release"):
        made = run_pymk("release", "publish", named, *place_options(*ALL_PLACES), *force_options(params))
    else:
        made = run_stage(PUBLISH, always, f"--graph={graph['artifact_id']}", *force_options(params))
    tell_release(made)
    return made


def tell_release(made: Mapping[str, Any]) -> None:
    """Says what became of a release, and where it tells what made it; so for the delta on it that is served instead."""
    log.info("release %s: %s", made["release_id"], made["said"])
    served = made["served"] if made["published"] and made.get("served") else made["release_id"]
    for release in dict.fromkeys((made["release_id"], served)):
        log.info("what made %s: %s", release, store_link(f"releases/{release}/lineage.json"))


@task(
    multiple_outputs=False,
    execution_timeout=LONG,
    outlets=[RELEASE],
    doc_md="Loads the release into Redis or DynamoDB where `api.tables` names one, and tells other DAGs of it by the "
    "asset pymk_release. Skipped where CURRENT did not move, or names another one by now: whoever moved it hands over.",
)
def hand_over(made: dict) -> dict:
    if not made["published"]:
        raise AirflowSkipException(f"{made['release_id']} is not served: {made.get('said', '')}")
    served = made.get("served") or made["release_id"]  # a delta on the release, where hours since are carried forward
    if settings().api.tables:
        loaded = run_pymk("release", "load", served, "--if-current", *place_options(STORE, CONFIG))
        now = loaded["served"]
    else:
        loaded, now = {}, run_pymk("release", "show", *place_options(STORE))["release_id"]
    if now != served:
        raise AirflowSkipException(f"{served} is not served any more: {now} is, and was or will be handed over")
    get_current_context()["outlet_events"][RELEASE].extra = {"release_id": served}
    return loaded


def night(always: Sequence[str] = ()) -> None:
    """Wires a night. always: settings, `section.key=value`, that stand over those of the form."""
    first = STAGES[0]
    graph = first_stage.override(
        task_id=first.name,
        pool=pool_of(first),
        execution_timeout=LONG,
        trigger_rule="none_failed",
        doc_md=first.summary,
    )(always)
    preflight(always) >> export_events() >> graph
    before = graph
    for stage in STAGES[1:]:
        if stage.sharded:
            shards = build_shard.partial(graph=graph, always=always).expand(shard=shard_numbers(graph))
            before >> shards
            before = shards
        named = {"task_id": stage.name, "pool": pool_of(stage), "execution_timeout": LONG, "doc_md": stage.summary}
        after = later_stage.override(**named)(stage.name, graph, always)
        before >> after
        before = after
    published = publish(graph, always)
    before >> published
    hand_over(published)
