"""The `pymk` command: parses, calls, prints. Heavy modules load inside the command that needs them."""

import logging
import os
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra import settings as settings_module
from infra.errors import ExitCode, PymkError, UsageError
from infra.errors import explain as explain_os_error
from infra.settings import Settings
from infra.store import open_store
from infra.times import parse_as_of
from jobs.cli_config import config_app
from jobs.cli_output import console, output, progress, table
from jobs.cli_release import open_release, open_release_folders, release_app
from jobs.pipeline import Pipeline
from jobs.stages import PUBLISH, STAGE_NAMES, stage_named

app = typer.Typer(
    help="People You May Know: from lake tables to a served release.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from jobs.version import VERSION

        output.show({"version": VERSION}, False, lambda c: c.print(VERSION))
        raise typer.Exit


app.add_typer(release_app, name="release")
app.add_typer(config_app, name="config")

Lake = Annotated[str, typer.Option(help="Folder or s3:// URI of the raw tables.")]
Store = Annotated[str, typer.Option(help="Folder or s3:// URI of artifacts and releases.")]
AsOf = Annotated[str, typer.Option(help="Date (00:00 UTC) or RFC 3339 time; only facts strictly before it exist.")]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over file and environment.")]
Replace = Annotated[bool, typer.Option("--replace", help="Delete the tables that the lake holds.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


@app.command()
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


@app.command("import")
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


@app.command()
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


@app.command()
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
    reason: Annotated[str | None, typer.Option(help="Why, kept in the release; with --force.")] = None,
    json: Json = False,
) -> None:
    """Run one stage; what each Airflow task calls."""
    if name not in STAGE_NAMES:
        raise UsageError(f"{name!r}: no such stage", f"Stages: {', '.join(STAGE_NAMES)}.")
    with _pipeline(lake, store, as_of, config, set_, graph) as pipeline:
        if name == PUBLISH:
            made = pipeline.publish(force=force, reason=reason)
        else:
            chosen = stage_named(name)
            _check_shard(shard, chosen.sharded, pipeline.settings)
            made = pipeline.ensure(chosen, shard) | {"index_shards": pipeline.settings.index.shards}
    output.show(made, json, lambda c: c.print(made))


@app.command()
def report(
    store: Store,
    release: Annotated[str | None, typer.Option(help="Release id; CURRENT if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to copy report.html and report.json to.")] = None,
    ablate: Annotated[
        str | None, typer.Option(help="Parts to measure the release without, such as no_gnn,no_ranker; takes minutes.")
    ] = None,
    json: Json = False,
) -> None:
    """Show a release's report: metrics, plots, costs."""
    from jobs.report.show import copy_report, print_report, read_report, save_report

    folder = open_release_folders(store, release, kinds=("report",))["report"]
    values = read_report(folder)
    if ablate is not None:
        from jobs.ablations import ablate_release, names_of

        names = names_of(ablate)
        values["metrics"]["ablations"] = ablate_release(open_release(store, release), names, progress)
    if out is not None and ablate is not None:
        save_report(values, out)
    elif out is not None:
        copy_report(folder, out)
    html = (out or folder) / "report.html" if out is not None or ablate is None else None
    output.show(values, json, lambda c: print_report(c, values, html))


@app.command(context_settings={"ignore_unknown_options": True})
def explain(
    user: Annotated[int, typer.Argument(help="The user whose list it is.")],
    candidate: Annotated[int, typer.Argument(help="The person shown, or missing.")],
    store: Store,
    release: Annotated[str | None, typer.Option(help="Release id; CURRENT if not given.")] = None,
    json: Json = False,
) -> None:
    """Say why a person is shown at this rank, or which rule or stage left them out."""
    from jobs.explain import explain as explain_pair

    made = explain_pair(open_release_folders(store, release), user, candidate)
    output.show(made, json, lambda c: _print_explanation(c, made))


@app.command()
def serve(
    store: Store,
    host: Annotated[str | None, typer.Option(help="Address; default api.host.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default api.port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Server processes; default api.workers.")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Serve the lookup API from the store's current release."""
    from jobs.serve import serve as serve_store

    settings, _ = settings_module.load(config, _flags(set_))
    open_store(store)
    api = settings.api
    serve_store(store, settings, host or api.host, port or api.port, workers or api.workers)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what is missing on this machine and how to get it."""
    from jobs.doctor import check

    findings = check()
    rows = [(f.name, "ok" if f.ok else "missing", f.found, "" if f.ok else f.fix) for f in findings]
    made = {"ok": all(f.ok for f in findings), "findings": [f.__dict__ for f in findings]}
    output.show(made, json, lambda c: c.print(table("pymk doctor", ["what", "", "found", "how to get it"], rows)))
    if not made["ok"]:
        raise typer.Exit(ExitCode.FAILED)


def main() -> None:
    """Entry point: maps every outcome to an exit code, and every failure to a message that says what to do."""
    # Math threads that spin while they wait slow each other down where there are more of them than cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    output.claim_stdout()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
        code: int = ExitCode.DONE
    except SystemExit as stop:  # typer has said what is wrong with the arguments, or the command chose its code
        code = stop.code if isinstance(stop.code, int) else ExitCode.DONE
        if code == ExitCode.USAGE and "--json" in sys.argv:
            _print_error("wrong arguments", "See --help.", code)
    except PymkError as error:
        code = _fail(error.what, error.fix, error.exit_code)
    except Exception as error:
        code = _unforeseen(error)
    sys.exit(int(code))


def _unforeseen(error: Exception) -> int:
    """What the system refused, such as room on the disk, or a fault of pymk: a script still gets its JSON object."""
    explained = explain_os_error(error) if isinstance(error, OSError) else None
    if explained:
        return _fail(explained.what, explained.fix, explained.exit_code)
    logging.exception("unforeseen")
    fix = "This is a fault of pymk: its trace is on stderr."
    return _fail(f"{type(error).__name__}: {error}", fix, ExitCode.FAILED)


def _fail(what: str, fix: str, code: int) -> int:
    console.print("[bold red]error[/bold red]", end=" ")
    console.print(f"{what}. {fix}" if fix else what, markup=False)
    if "--json" in sys.argv:
        _print_error(what, fix, code)
    return code


def _print_error(what: str, fix: str, code: int) -> None:
    output.json({"error": {"what": what, "fix": fix, "exit_code": int(code)}})


def _flags(pairs: list[str] | None) -> dict[str, str]:
    flags = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--set {pair}: no value", "Write --set section.key=value.")
        flags[key.strip()] = value.strip()
    return flags


def _pipeline(
    lake: str, store: str, as_of: str, config: Path | None, pairs: list[str] | None, graph: str | None = None
) -> Pipeline:
    settings, _ = settings_module.load(config, _flags(pairs))
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


def _print_explanation(c: Console, made: dict[str, Any]) -> None:
    c.print(made["summary"])
    for reason in made["reasons"]:
        c.print("  because", " ".join(f"{k}={v}" for k, v in reason.items() if v is not None))
    if "sources" in made:
        c.print(f"named by {', '.join(made['sources']) or 'no source'}")
    if "pair_features" in made:
        c.print(table("the pair", ["feature", "value"], list(made["pair_features"].items())))
    if "user_features" in made:
        one, other = made["user_features"]["user"], made["user_features"]["candidate"]
        rows = [(name, one[name], other[name]) for name in one]
        c.print(table("the two", ["feature", made["user_id"], made["candidate_id"]], rows))


if __name__ == "__main__":
    main()
