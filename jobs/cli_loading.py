"""`pymk release load`: puts a release where the API's workers of many machines read it."""

from typing import Annotated, Any

import typer
from rich.console import Console

from infra.errors import UsageError
from infra.releases import ReleaseStore
from infra.store import open_store
from infra.table_hosts import open_host
from jobs.cli_options import Config, Json, Set, Store, load_settings
from jobs.cli_output import output, progress
from jobs.cli_release import ReleaseId, find_release

loading_app = typer.Typer()

LOAD_TIMEOUT_S = 30.0


@loading_app.command()
def load(
    store: Store,
    release_id: ReleaseId = None,
    into: Annotated[
        str | None, typer.Option(help="redis://…, redis+cluster://… or dynamodb://prefix; default api.tables.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Releases to keep there, with the one served.")] = 2,
    switch: Annotated[bool, typer.Option("--switch/--no-switch", help="Serve it once it is there.")] = True,
    if_current: Annotated[
        bool, typer.Option(help="Serve it only while CURRENT names it, as it is without an ID.")
    ] = False,
    config: Config = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Load a release into Redis or DynamoDB and serve it from there; one that is there already is only switched to."""
    from jobs.release_load import load_release

    uri = into or load_settings(config, set_).api.tables
    if not uri:
        fix = "Give --into redis://host:port/db or dynamodb://prefix, or set api.tables."
        raise UsageError("nowhere to load a release", fix)
    opened = open_store(store)
    host = open_host(uri, LOAD_TIMEOUT_S)
    try:
        release = find_release(ReleaseStore(opened), release_id)
        made = load_release(opened, release, host, keep, switch, progress, if_current or release_id is None)
    finally:
        host.close()
    output.show(made, json, lambda c: _print_load(c, made))


def _print_load(c: Console, made: dict[str, Any]) -> None:
    how = f"loaded in {made['load_s']:.1f} s" if made["loaded"] else "not loaded"
    c.print(f"{made['release_id']}: {how}; {made['host']} serves {made['served']}", markup=False)
    if made["removed"]:
        c.print(f"removed {', '.join(made['removed'])}", markup=False)
