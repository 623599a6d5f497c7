"""`pymk serve` and `pymk doctor`: the API, and what this machine lacks."""

from typing import Annotated

import typer

from infra.errors import ExitCode
from jobs.cli_options import Config, Json, Set, Store, load_settings
from jobs.cli_output import output, table

serve_app = typer.Typer()


@serve_app.command()
def serve(
    store: Store,
    host: Annotated[str | None, typer.Option(help="Address; default api.host.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; default api.port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Server processes; default api.workers.")] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Serve the lookup API from the store's current release."""
    from jobs.serve import refuse_lake
    from jobs.serve import serve as serve_store

    settings = load_settings(config, set_)
    api = settings.api
    if not api.tables:
        refuse_lake(store)
    serve_store(store, settings, host or api.host, port or api.port, workers or api.workers)


@serve_app.command()
def shards(
    store: Store,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port; name it in the API's ladder.ann_shards.")],
    host: Annotated[str, typer.Option(help="Address; whoever reaches it is answered.")] = "127.0.0.1",
    shard: Annotated[
        list[int] | None, typer.Option(min=0, help="A shard to hold; may be given again; default all.")
    ] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Hold index shards of the store's current release for API workers elsewhere."""
    import logging
    from importlib import import_module

    from jobs.serve import free_address, refuse_lake

    settings = load_settings(config, set_)
    refuse_lake(store)
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lookup_api").setLevel(logging.INFO)
    run = import_module("lookup_api.ann_server").serve_shards
    run(store, free_address(host, port, "--port", "--host"), port, shard, settings.api.poll_s)


@serve_app.command()
def doctor(config: Config = None, set_: Set = None, json: Json = False) -> None:
    """Say what is missing on this machine and how to get it, whether live facts are kept, and where leaves score."""
    from jobs.doctor import check

    findings = check(load_settings(config, set_))
    rows = [(f.name, f.state, f.found, "" if f.ok else f.fix) for f in findings]
    made = {"ok": all(f.ok or not f.needed for f in findings), "findings": [f.__dict__ for f in findings]}
    output.show(made, json, lambda c: c.print(table("pymk doctor", ["what", "", "found", "how to get it"], rows)))
    if not made["ok"]:
        raise typer.Exit(ExitCode.FAILED)
