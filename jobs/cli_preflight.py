"""`pymk preflight`: what would stop a night, before it starts."""

from typing import Annotated, Any

import typer
from rich.console import Console

from infra.times import format_time, parse_as_of
from jobs.cli_options import AsOf, Config, Json, Lake, Set, Store, load_settings
from jobs.cli_output import output, progress

preflight_app = typer.Typer()


@preflight_app.command()
def preflight(
    lake: Lake,
    store: Store,
    as_of: AsOf,
    config: Config = None,
    set_: Set = None,
    force: Annotated[bool, typer.Option(help="Tell what is in the way and go on.")] = False,
    json: Json = False,
) -> None:
    """Look at inputs, memory, time and room before a night; what a run's first task calls."""
    from jobs.preflight import check, refuse

    time = parse_as_of(as_of)
    found = check(lake, store, time, load_settings(config, set_))
    for obstacle in found.obstacles:
        progress(f"{'refuses' if obstacle.refuses else 'warning'}: {obstacle}. {obstacle.fix}")
    progress(told(found.as_dict()))
    if not force:
        refuse(found)
    made = {"as_of": format_time(time)} | found.as_dict()
    output.show(made, json, lambda c: _print(c, made))


def told(found: dict[str, Any]) -> str:
    """The estimate in a line."""
    estimate, rows = found["estimate"], sum(found["rows"].values())
    source = f"by release {found['release_before']}" if estimate["measured"] else "by known networks"
    return (
        f"{rows:,} rows in {len(found['rows'])} tables; about {estimate['wall_s'] / 60:.0f} min, "
        f"{estimate['memory_bytes'] / 2**30:.1f} GiB of memory and {estimate['disk_bytes'] / 2**30:.1f} GiB of disk, "
        f"{source}"
    )


def _print(c: Console, made: dict[str, Any]) -> None:
    refusing = sum(obstacle["refuses"] for obstacle in made["obstacles"])
    c.print(f"as of {made['as_of']}: " + (f"{refusing} obstacles passed over" if refusing else "the night can start"))
