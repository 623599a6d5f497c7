"""`pymk key`: make, list and revoke the keys of the lookup API."""

from typing import Annotated, Any

import typer
from rich.console import Console

from infra.keys import FILE, READ, SCOPES, ApiKey, KeyStore, utc_now
from infra.store import open_store
from jobs.cli_options import Json, Store
from jobs.cli_output import console, output, table

FIRST = (
    "it is the store's first: within api.poll_s seconds the API asks everybody for a key, on this machine too, and does"
    f" so when all are revoked. To undo that, delete {FILE} in the store, which forgets all keys, and restart servers"
)
"""What whoever makes the first key may not expect."""

key_app = typer.Typer(help="Make, list and revoke keys of the lookup API.", no_args_is_help=True)


@key_app.command()
def create(
    store: Store,
    name: Annotated[str, typer.Option(help="Whose key it is, for `pymk key list`.")] = "unnamed",
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", "--scopes", help=f"Of {', '.join(SCOPES)}; by comma or several times. Default {READ}."),
    ] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days it is valid; for ever if not given.")] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once: only its hash is kept."""
    scopes = [part.strip() for text in scope or [READ] for part in text.split(",") if part.strip()]
    keys = KeyStore(open_store(store, writable=True))
    first = not keys.listed()
    key, text = keys.create(name, scopes, utc_now(), expires_days)
    output.show(described(key) | {"key": text}, json, lambda c: _print_new(c, key, text, first))


@key_app.command("list")
def list_(store: Store, json: Json = False) -> None:
    """All keys, oldest first, with those that were revoked."""
    keys = KeyStore(open_store(store)).listed()
    rows = [(k.key_id, k.name, ", ".join(k.scopes), k.created_at, k.expires_at or "", k.revoked_at or "") for k in keys]
    columns = ["id", "name", "scopes", "created", "expires", "revoked"]
    output.show(
        {"keys": [described(key) for key in keys]},
        json,
        lambda c: c.print(table("keys" if keys else "no keys", columns, rows)),
    )


@key_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key.")],
    store: Store,
    json: Json = False,
) -> None:
    """Make a key worthless; servers know within api.poll_s seconds."""
    key = KeyStore(open_store(store, writable=True)).revoke(key_id, utc_now())
    output.show(described(key), json, lambda c: c.print(f"{key.key_id} ({key.name}): revoked at {key.revoked_at}"))


def described(key: ApiKey) -> dict[str, Any]:
    """All but the hash."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _print_new(c: Console, key: ApiKey, text: str, first: bool) -> None:
    c.print(text, markup=False, soft_wrap=True)
    console.print(f"key {key.key_id} ({key.name}) for {', '.join(key.scopes)}; it is shown only now", markup=False)
    if first:
        console.print(FIRST, markup=False, soft_wrap=True)
