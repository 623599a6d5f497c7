"""The `pymk` command: its groups of commands, a file each, and what every outcome exits with.

Heavy modules load inside the command that needs them.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from infra.errors import ExitCode, PymkError
from infra.errors import explain as explain_os_error
from jobs.cli_config import config_app
from jobs.cli_events import erase_app, events_app
from jobs.cli_hourly import hourly_app
from jobs.cli_key import key_app
from jobs.cli_lake import lake_app
from jobs.cli_leaf import leaf_app
from jobs.cli_loading import loading_app
from jobs.cli_model import model_app
from jobs.cli_output import console, output
from jobs.cli_preflight import preflight_app
from jobs.cli_release import release_app
from jobs.cli_report import report_app
from jobs.cli_run import run_app
from jobs.cli_serve import serve_app
from jobs.termination import EXIT_CODE, Terminated, unwind_at_sigterm

app = typer.Typer(
    help="People You May Know: from lake tables to a served release.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (lake_app, preflight_app, run_app, hourly_app, report_app, serve_app, leaf_app, erase_app):
    app.add_typer(commands)
release_app.add_typer(loading_app)
app.add_typer(release_app, name="release")
app.add_typer(model_app, name="model")
app.add_typer(key_app, name="key")
app.add_typer(events_app, name="events")
app.add_typer(config_app, name="config")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from jobs.version import VERSION

        output.show({"version": VERSION}, False, lambda c: c.print(VERSION))
        raise typer.Exit


def main() -> None:
    """Entry point: maps every outcome to an exit code, and every failure to a message that says what to do."""
    # Math threads that spin while they wait slow each other down where there are more of them than cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    unwind_at_sigterm()
    output.claim_stdout()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
        code: int = ExitCode.DONE
    except Terminated:
        code = _fail("ended by SIGTERM", "Run it again: what is finished is found.", EXIT_CODE)
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


if __name__ == "__main__":
    main()
