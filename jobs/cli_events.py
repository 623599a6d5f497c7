"""`pymk events` and `pymk erase`: what happened since the last night, and people who leave for good."""

import sys
import time
from contextlib import closing
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.errors import PymkError
from infra.live_facts import facts_uri, open_live_facts
from infra.store import open_store
from jobs.cli_options import Config, Json, Lake, Set, Store, load_settings
from jobs.cli_output import output, table

events_app = typer.Typer(help="Live events on their way to the next night.", no_args_is_help=True)
erase_app = typer.Typer()


@events_app.command()
def export(store: Store, lake: Lake, config: Config = None, set_: Set = None, json: Json = False) -> None:
    """Write live events and impressions to the lake as its tables, so that the next night knows them."""
    from jobs.events_export import export_events

    settings = load_settings(config, set_)
    with closing(open_live_facts(facts_uri(settings, store), settings)) as facts:
        made = export_events(facts, lake, settings.events.keep_days)
    rows = [*made["rows"].items(), ("files in which facts ended", made["files_edited"])]
    output.show(made, json, lambda c: c.print(table(f"{made['events']:,} events → {lake}", ["table", "rows"], rows)))


@erase_app.command(context_settings={"ignore_unknown_options": True})
def erase(
    user: Annotated[int, typer.Argument(help="The person to erase, for good.")],
    store: Store,
    lake: Annotated[str | None, typer.Option(help="A lake whose rows of the person go too.")] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Erase an id of which nothing here has heard, for what names it later.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, where there is a terminal to ask at.")] = False,
    config: Config = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Erase a person from live facts, caches and every answer at once, and from all that is built from now on."""
    from jobs.erasure import erase as erase_person
    from jobs.erasure import open_score_queue, refuse_unknown

    settings = load_settings(config, set_)
    opened, facts_at = open_store(store, writable=True), facts_uri(settings, store)
    with (
        closing(open_live_facts(facts_at, settings)) as facts,
        closing(open_score_queue(facts_at, settings)) as queue,
    ):
        if not unknown:
            refuse_unknown(opened, facts, user, lake)
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Erase {user}? There is no way back.", err=True):
            raise PymkError(f"{user}: nothing was erased")
        made = erase_person(opened, facts, user, time.time_ns() // 1000, settings.ladder.l2, lake, queue)
    output.show(made, json, lambda c: _print_erasure(c, made))


_KEPT = "Releases that are kept may still hold the person; no answer shows them, and the next release is without."
_LEFT = {
    True: _KEPT,
    False: "Nothing here had heard of {}: the erasure is recorded, and holds for what names it later.",
    None: f"Whether releases know {{}} cannot be told, as one cannot be read. {_KEPT}",
}
"""What is left of a person, by whether anything knew of them."""


def _print_erasure(c: Console, made: dict[str, Any]) -> None:
    touched = [(f"live facts: {what}", rows) for what, rows in made["live_facts"].items()]
    touched.append(("shared cache: lists, all of them", made["cached_lists"]))
    touched.append(("requests to score later, all of them", made["queued_scores"]))
    touched += [(f"lake: {name}", rows) for name, rows in made["lake"].items()]
    c.print(table(f"erased {made['user_id']}", ["what", "rows removed"], touched))
    c.print(_LEFT[made["known"]].format(made["user_id"]), style="" if made["known"] else "yellow")
