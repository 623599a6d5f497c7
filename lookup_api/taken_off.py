"""Takes a canary off a surface for everybody: the route says so, with why and which server did."""

import socket
from datetime import UTC, datetime

from infra.model_routes import ModelRef, RouteStore, without_canary
from infra.store import open_store
from infra.times import format_time


def why_ended() -> str:
    """Of a model whose mark a process of this machine left behind (lookup_api.model_marks)."""
    return f"a server on {socket.gethostname()} ended while it scored"


def take_off(store_uri: str, surface: str, canary: ModelRef, why: str) -> None:
    """Raises what the store may, and StoreError for one that cannot be written."""
    at = format_time(datetime.now(UTC).replace(microsecond=0))
    routes = RouteStore(open_store(store_uri, writable=True))
    routes.change(surface, without_canary(canary, why, at), at, f"a server on {socket.gethostname()}")
