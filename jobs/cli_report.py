"""`pymk report` and `pymk explain`: what a release holds, and why."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.store import open_store
from jobs.cli_options import Config, Json, OfRelease, Set, Store, load_settings
from jobs.cli_output import output, progress, table
from jobs.cli_release import open_release, open_release_folders

report_app = typer.Typer()


@report_app.command()
def report(
    store: Store,
    release: OfRelease = None,
    out: Annotated[Path | None, typer.Option(help="Folder to copy report.html and report.json to.")] = None,
    ablate: Annotated[
        str | None, typer.Option(help="Parts to measure the release without, such as no_gnn,no_ranker; takes minutes.")
    ] = None,
    json: Json = False,
) -> None:
    """Show a release's report: metrics, plots, costs."""
    from jobs.erasure import hide_erased
    from jobs.report.show import copy_report, print_report, read_report, save_report

    folder = open_release_folders(store, release, kinds=("report",))["report"]
    values = read_report(folder)
    changed = hide_erased(open_store(store), values) or ablate is not None
    if ablate is not None:
        from jobs.ablations import ablate_release, names_of

        names = names_of(ablate)
        values["metrics"]["ablations"] = ablate_release(open_release(store, release), names, progress)
    if out is not None and changed:
        save_report(values, out)
    elif out is not None:
        copy_report(folder, out)
    html = (out or folder) / "report.html" if out is not None or not changed else None
    output.show(values, json, lambda c: print_report(c, values, html))


@report_app.command(context_settings={"ignore_unknown_options": True})
def explain(
    user: Annotated[int, typer.Argument(help="The user whose list it is.")],
    candidate: Annotated[int, typer.Argument(help="The person shown, or missing.")],
    store: Store,
    release: OfRelease = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="People of the answer, as the API's limit.")] = 20,
    config: Config = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Say why a person is shown at this rank, or which rule or stage left them out."""
    from jobs.erasure import refuse_erased
    from jobs.explain import explain as explain_pair
    from jobs.explain_answer import as_answered

    settings = load_settings(config, set_)
    refuse_erased(open_store(store), user, candidate)
    folders = open_release_folders(store, release)
    made = as_answered(explain_pair(folders, user, candidate), folders, store, settings, limit)
    output.show(made, json, lambda c: _print_explanation(c, made))


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
