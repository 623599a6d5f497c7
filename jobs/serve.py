"""`pymk serve`: granian in front of the lookup API, which is only named here, never imported."""

import os
import tempfile

from granian import Granian
from granian.constants import Interfaces

from infra.settings import ENV_PREFIX, Settings

APP = "lookup_api.app:create_app"
STORE_VARIABLE = "PYMK_STORE"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
THREADS = 2
"""Request threads of a worker: one waits for a page of the tables while the other answers."""

DRAIN_S = 10
"""Seconds a worker may take to end after it was told to; a stuck one is killed, so that a restart never hangs."""


def serve(store_uri: str, settings: Settings, host: str, port: int, workers: int) -> None:
    """Serves the store's current release until SIGINT or SIGTERM; each worker follows CURRENT by itself."""
    with tempfile.TemporaryDirectory(prefix="pymk-metrics-") as folder:
        os.environ.update(worker_environment(store_uri, settings))
        if workers > 1:
            os.environ[METRICS_VARIABLE] = folder
        Granian(
            APP,
            address=host,
            port=port,
            interface=Interfaces.WSGI,
            workers=workers,
            blocking_threads=THREADS,
            factory=True,
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_S,
        ).serve()


def worker_environment(store_uri: str, settings: Settings) -> dict[str, str]:
    """The store and every setting a worker reads, as variables that infra.settings.load understands."""
    found = {STORE_VARIABLE: store_uri}
    for section in ("api", "rules", "store"):
        for key, value in settings.section(section).items():
            text = ",".join(value) if isinstance(value, list) else str(value)
            found[f"{ENV_PREFIX}{section.upper()}__{key.upper()}"] = text
    return found
