"""How the command line reads, copies and prints a report."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from infra.errors import NO_ROOM, CorruptArtifact, UsageError
from jobs.metrics import RANKER
from jobs.report.drawings import COMPARED, methods_of
from jobs.report.page import HTML, JSON, METRICS, number, percent, seconds, size, write_report


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a report artifact. Raises CorruptArtifact."""
    try:
        found = orjson.loads((folder / JSON).read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise CorruptArtifact(f"{folder / JSON}: {error}", "Run `pymk stage evaluate` again.") from None
    if not isinstance(found, dict):
        raise CorruptArtifact(f"{folder / JSON}: is not a JSON object", "Run `pymk stage evaluate` again.")
    return found


def copy_report(folder: Path, out: Path) -> None:
    """Copies report.json and report.html to a folder, which is made if need be. Raises UsageError where it cannot."""
    with _folder_for(out):
        for name in (JSON, HTML):
            shutil.copyfile(folder / name, out / name)


def save_report(report: Mapping[str, Any], out: Path) -> None:
    """Writes a report that no artifact holds to a folder, as `copy_report` would."""
    with _folder_for(out):
        write_report(out, report)


@contextmanager
def _folder_for(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        fix = "Name a folder that this user may write to, or one that can be made."
        raise UsageError(f"--out {out}: {error.strerror or error}", fix) from error


def print_report(console: Console, report: Mapping[str, Any], html: Path | None) -> None:
    """Quality and cost as tables, and where the page with the plots is, if there is one."""
    for note in report["notes"]:
        console.print(f"[yellow]{note}[/yellow]")
    console.print(_quality(report))
    if report["metrics"].get("ablations"):
        console.print(_ablations(report["metrics"]["ablations"]))
    console.print(_costs(report))
    if html is not None:
        console.print(f"With plots: {html}", soft_wrap=True)


def _quality(report: Mapping[str, Any]) -> Table:
    metrics = report["metrics"]
    asked, hidden = metrics["asked_users"], metrics["hidden_friendships"]
    title = f"As of {report['as_of']}: {asked:,} users, {hidden:,} friendships to find"
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for name in METRICS:
        table.add_column(name.replace("_", " "), justify="right")
    for method, values in methods_of(metrics).items():
        style = "bold" if method == RANKER else ""
        table.add_row(method, *(number(values.get(name)) for name in METRICS), style=style)
    return table


def _ablations(found: Mapping[str, Any]) -> Table:
    table = Table(title="Without a part, the ranker learnt again", title_justify="left")
    for name in ("left out", f"{COMPARED} without", "with", "the part adds", "95 % interval"):
        table.add_column(name, justify="left" if name == "left out" else "right")
    for name, one in found.items():
        values = one["metrics"][COMPARED]
        ends = values["ratio_interval"]
        gain = "–" if ends is None else " to ".join(percent(end) for end in ends)
        table.add_row(name, number(values["other"]), number(values["own"]), percent(values["ratio"]), gain)
    return table


def _costs(report: Mapping[str, Any]) -> Table:
    table = Table(title="Cost", title_justify="left")
    for name in ("stage", "wall", "CPU", "peak memory", "rows", "rows/s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for cost in report["costs"]:
        table.add_row(
            cost["stage"],
            seconds(cost["wall_s"]),
            seconds(cost["cpu_s"]),
            size(cost["peak_memory_bytes"]),
            number(cost["rows"]),
            number(cost["rows_per_s"]),
        )
    return table
