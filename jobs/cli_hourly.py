"""`pymk hourly`: a delta release on the last night's."""

from typing import Annotated, Any

import typer
from rich.console import Console

from infra.store import open_store
from infra.times import parse_as_of
from jobs.cli_options import AsOf, Config, Json, Lake, Set, Store, load_settings
from jobs.cli_output import output, progress

hourly_app = typer.Typer()


@hourly_app.command()
def hourly(
    lake: Lake,
    store: Store,
    as_of: AsOf,
    base: Annotated[str | None, typer.Option(help="Nightly release to build on; that of CURRENT if not given.")] = None,
    config: Config = None,
    set_: Set = None,
    publish: Annotated[bool, typer.Option("--publish/--no-publish", help="Move CURRENT at the end.")] = True,
    json: Json = False,
) -> None:
    """Publish who joined, and what changed between people, since the night: a delta release on the night's."""
    from jobs.hourly import run_hourly

    settings, time = load_settings(config, set_), parse_as_of(as_of)
    open_store(lake)
    made = run_hourly(lake, open_store(store, writable=True), time, settings, progress, base, publish)
    output.show(made, json, lambda c: _print(c, made))


def _print(c: Console, made: dict[str, Any]) -> None:
    changed = ", ".join(f"{count:,} {name}" for name, count in made["changed"].items())
    c.print(f"as of {made['as_of']} on {made['base']}: {changed or 'nothing new'}", markup=False)
    c.print(f"release {made['release_id']}: {made['said']}", markup=False)
