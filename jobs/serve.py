"""`pymk serve`: granian in front of the lookup API, which is only named here, never imported."""

import errno
import os
import signal
import socket
import tempfile

from granian import Granian
from granian.constants import Interfaces

from infra.errors import PymkError, UsageError
from infra.settings import ENV_PREFIX, Settings

APP = "lookup_api.app:create_app"
STORE_VARIABLE = "PYMK_STORE"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
THREADS = 2
"""Request threads of a worker: one waits for a page of the tables while the other answers."""

DRAIN_S = 10
"""Seconds a worker may take to end after it was told to; a stuck one is killed, so that a restart never hangs."""

_STOPPING = {signal.SIGTERM, signal.SIGINT}


def serve(store_uri: str, settings: Settings, host: str, port: int, workers: int) -> None:
    """Serves the store's current release until SIGINT or SIGTERM; each worker follows CURRENT by itself.

    Raises UsageError for a host that is not this machine, PymkError where another process listens on the port.
    """
    address = free_address(host, port)
    _let_early_workers_end()
    with tempfile.TemporaryDirectory(prefix="pymk-metrics-") as folder:
        os.environ.update(worker_environment(store_uri, settings))
        if workers > 1:
            os.environ[METRICS_VARIABLE] = folder
        Granian(
            APP,
            address=address,
            port=port,
            interface=Interfaces.WSGI,
            workers=workers,
            blocking_threads=THREADS,
            factory=True,
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_S,
        ).serve()


def free_address(host: str, port: int) -> str:
    """The IP address of `host`, IPv4 where it has one, on whose port nothing listens.

    granian's workers share their port, and so it would also share it with a server that is there already.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: is no address: {error}", _HOSTS) from None
    family, kind, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        with socket.socket(family, kind) as probe:
            # What an earlier server left behind does not matter, only one that listens now.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _unusable(error, host, port) from None
    return str(address[0])


_HOSTS = "Give --host (or api.host) 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses, or one of them."


def _unusable(error: OSError, host: str, port: int) -> PymkError:
    if error.errno == errno.EADDRINUSE:
        fix = "Stop the server that listens there, or choose another port with --port or api.port."
        return PymkError(f"port {port} on {host} is taken", fix)
    if error.errno == errno.EACCES:
        fix = "Choose a port above 1023 with --port or api.port."
        return UsageError(f"port {port} on {host} is not for this user", fix)
    return UsageError(f"--host {host}: is not an address of this machine: {error.strerror}", _HOSTS)


def _let_early_workers_end() -> None:
    """A worker that is told to stop while it still loads the app ends at once.

    It is a fork of the server and would, until it sets its own, handle signals as the server does: note them and go on.
    A worker never gets SIGINT, which a terminal sends to all: the server tells its workers itself.
    """
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING),
        after_in_child=_end_when_told,
    )


def _end_when_told() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def worker_environment(store_uri: str, settings: Settings) -> dict[str, str]:
    """The store and every setting a worker reads, as variables that infra.settings.load understands."""
    found = {STORE_VARIABLE: store_uri}
    for section in ("api", "rules", "store"):
        for key, value in settings.section(section).items():
            text = ",".join(value) if isinstance(value, list) else str(value)
            found[f"{ENV_PREFIX}{section.upper()}__{key.upper()}"] = text
    return found
