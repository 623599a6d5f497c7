"""`pymk run` and `pymk stage`: what makes artifacts and releases."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.errors import UsageError
from infra.settings import Settings
from infra.store import open_store
from infra.times import parse_as_of
from jobs.cli_options import AsOf, Config, Json, Lake, Reason, Set, Store, load_settings
from jobs.cli_output import output, progress, table
from jobs.pipeline import Pipeline
from jobs.stages import PUBLISH, STAGE_NAMES, stage_named

run_app = typer.Typer()


@run_app.command()
def run(
    lake: Lake,
    store: Store,
    as_of: AsOf,
    config: Config = None,
    set_: Set = None,
    from_: Annotated[str | None, typer.Option("--from", help="First stage; those before must be finished.")] = None,
    until: Annotated[str | None, typer.Option(help="Last stage.")] = None,
    publish: Annotated[bool, typer.Option("--publish/--no-publish", help="Move CURRENT at the end.")] = True,
    json: Json = False,
) -> None:
    """Run all stages and publish the release."""
    with _pipeline(lake, store, as_of, config, set_) as pipeline:
        made = pipeline.run(from_, until, publish)
    output.show(made, json, lambda c: _print_run(c, made))


@run_app.command()
def stage(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGE_NAMES)}.")],
    lake: Lake,
    store: Store,
    as_of: AsOf,
    config: Config = None,
    set_: Set = None,
    shard: Annotated[int | None, typer.Option(min=0, help="Index shard to build; build_index only.")] = None,
    graph: Annotated[str | None, typer.Option(help="Artifact id of the graph, so that the lake is not read.")] = None,
    force: Annotated[bool, typer.Option(help="Pass quality gates and a newer release; publish only.")] = False,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Run one stage; what each Airflow task calls."""
    if name not in STAGE_NAMES:
        raise UsageError(f"{name!r}: no such stage", f"Stages: {', '.join(STAGE_NAMES)}.")
    _check_force(name, force, reason)
    with _pipeline(lake, store, as_of, config, set_, graph) as pipeline:
        if name == PUBLISH:
            made = pipeline.publish(force=force, reason=reason)
        else:
            chosen = stage_named(name)
            _check_shard(shard, chosen.sharded, pipeline.settings)
            made = pipeline.ensure(chosen, shard) | {"index_shards": pipeline.settings.index.shards}
    output.show(made, json, lambda c: c.print(made))


def _pipeline(
    lake: str, store: str, as_of: str, config: Path | None, pairs: list[str] | None, graph: str | None = None
) -> Pipeline:
    settings = load_settings(config, pairs)
    time = parse_as_of(as_of)
    if graph is None:
        open_store(lake)
    opened = open_store(store, writable=True, create=True)
    return Pipeline(lake, opened, time, settings, progress, graph)


def _check_shard(shard: int | None, sharded: bool, settings: Settings) -> None:
    if shard is not None and not sharded:
        raise UsageError(f"--shard {shard}: only build_index has shards", "Leave --shard out.")
    if shard is not None and shard >= settings.index.shards:
        raise UsageError(f"--shard {shard}: there are {settings.index.shards} shards", "They count from 0.")


def _check_force(name: str, force: bool, reason: str | None) -> None:
    if name == PUBLISH:
        from jobs.publishing import refuse_reason_alone

        refuse_reason_alone(force, reason)
    elif force or reason is not None:
        raise UsageError(f"{name}: takes neither --force nor --reason", "Only publish has gates to pass over.")


def _print_run(c: Console, made: dict[str, Any]) -> None:
    rows = [
        (
            name,
            f"{s['rows']:,}",
            "found" if s["found"] else f"{s['cost']['wall_s']:.1f} s",
            f"{s['cost']['peak_memory_bytes'] / 2**20:,.0f} MiB",
            s["content_hash"][:12],
        )
        for name, s in made["stages"].items()
    ]
    c.print(table(f"as of {made['as_of']}", ["stage", "rows", "wall", "peak memory", "content"], rows))
    if "release_id" in made:
        c.print(f"release {made['release_id']}: {made['said']}")
