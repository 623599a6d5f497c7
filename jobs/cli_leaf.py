"""`pymk leaf`: models that score for API workers elsewhere."""

from typing import Annotated

import typer

from infra.errors import UsageError
from jobs.cli_options import Config, Set, Store, load_settings

leaf_app = typer.Typer()


@leaf_app.command()
def leaf(
    store: Store,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port; name it in the API's leaves.addresses.")],
    host: Annotated[str, typer.Option(help="Address; whoever reaches it is answered.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of /metrics over HTTP; default none.")
    ] = None,
    config: Config = None,
    set_: Set = None,
) -> None:
    """Score by models of the store's registry for API workers elsewhere."""
    import logging
    from importlib import import_module

    from jobs.serve import free_address, refuse_lake

    settings = load_settings(config, set_)
    refuse_lake(store)
    address = free_address(host, port, "--port", "--host")
    if metrics_port == port:
        raise UsageError(f"--metrics-port {port}: is the port of --port", "Choose another.")
    if metrics_port is not None:
        free_address(host, metrics_port, "--metrics-port", "--host")
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lookup_api").setLevel(logging.INFO)
    run = import_module("lookup_api.leaves.leaf_server").serve_leaf
    run(store, settings, address, port, metrics_port)
