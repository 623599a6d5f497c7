"""`pymk sample` and `pymk import`: what makes a lake."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs.cli_options import Json, Lake
from jobs.cli_output import output, table

lake_app = typer.Typer()

Replace = Annotated[bool, typer.Option("--replace", help="Delete the tables that the lake holds.")]


@lake_app.command()
def sample(
    users: Annotated[int, typer.Option(min=1, help="Users to generate.")],
    lake: Lake,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed; the same seed gives the same tables.")] = 17,
    end: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Every fact is before this date.")] = datetime(
        2026, 1, 1
    ),
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Generate a believable social network as lake tables."""
    from jobs.lake_writer import lake_writer
    from jobs.sample import generate

    with lake_writer(lake, replace) as write_file:
        made = generate(users, write_file, seed, date(end.year, end.month, end.day))
    rows = list(made["rows"].items())
    output.show(made, json, lambda c: c.print(table(f"{users:,} people → {lake}", ["table", "rows"], rows)))


@lake_app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of CSV or CSV.gz files named as the lake's tables.")],
    lake: Lake,
    replace: Replace = False,
    json: Json = False,
) -> None:
    """Import CSV files as lake tables; other files are named and ignored."""
    from jobs.csv_import import import_folder
    from jobs.lake_writer import lake_writer

    with lake_writer(lake, replace) as write_file:
        made = import_folder(folder, write_file)
    output.show(made, json, lambda c: _print_import(c, f"{folder} → {lake}", made))


def _print_import(c: Console, title: str, made: dict[str, Any]) -> None:
    from infra.schemas import LAKE_TABLES

    c.print(table(title, ["table", "rows"], list(made["tables"].items())))
    if made["ignored"]:
        c.print(f"ignored, no table has this name: {', '.join(made['ignored'])}")
    for name, columns in made["unknown_columns"].items():
        known = ", ".join(LAKE_TABLES[name].schema.names)
        c.print(f"[yellow]warning[/yellow] {name}: no such column, not used: {', '.join(columns)} (there are {known})")
    for name, columns in made["kept_as_text"].items():
        c.print(
            f"[yellow]warning[/yellow] {name}: kept as text, as some value does not fit: {', '.join(columns)}; "
            "a run puts such rows into quarantine"
        )
