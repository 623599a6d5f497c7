"""Takes a model off a surface for everybody: the route says so, with why and which server did."""

import socket
from collections.abc import Callable
from datetime import UTC, datetime

from infra.model_routes import Edit, ModelRef, RouteStore
from infra.store import open_store
from infra.times import format_time

Without = Callable[[ModelRef, str, str], Edit]
"""Of the model, why and when."""


def why_ended() -> str:
    """Of a model whose mark a process of this machine left behind (lookup_api.model_marks)."""
    return f"a server on {socket.gethostname()} ended while it scored"


def take_off(store_uri: str, surface: str, model: ModelRef, why: str, without: Without) -> None:
    """Raises what the store may, and StoreError for one that cannot be written."""
    at = format_time(datetime.now(UTC).replace(microsecond=0))
    routes = RouteStore(open_store(store_uri, writable=True))
    routes.change(surface, without(model, why, at), at, f"a server on {socket.gethostname()}")
