"""`pymk serve`: granian in front of the lookup API, which is only named here, never imported."""

import errno
import ipaddress
import logging
import logging.config
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from infra.errors import PymkError, StoreError, UsageError
from infra.keys import KeyStore
from infra.live_facts import NO_EVICTION, evicting_policy_at, facts_uri
from infra.redis_connection import shown
from infra.release_records import FOLDER as RELEASES
from infra.request_threads import SPARE, SPARE_VARIABLE, threads_of
from infra.schemas import CONNECTIONS
from infra.settings import ENV_PREFIX, Settings
from infra.store import open_store
from jobs.erasure import adopt_erasures

log = logging.getLogger(__name__)

APP = "lookup_api.app:create_app"
STORE_VARIABLE = "PYMK_STORE"
METRICS_VARIABLE, DRAIN_VARIABLE = "PROMETHEUS_MULTIPROC_DIR", "PYMK_DRAIN_FILE"

DRAIN_S = 10
"""Seconds a worker may take to end after it was told to; a stuck one is killed, so that a restart never hangs."""

MOST_RESPAWNS = 12
"""Of workers, in a minute: a worker that cannot start ends in less than five seconds."""

_STOPPING = {signal.SIGTERM, signal.SIGINT}


LOOPBACK = "127.0.0.1"
HEADERS_WITHIN_MS = 10_000
"""Time a caller has to send its headers: connections that send nothing must not pile up."""

SECTIONS = ("api", "ladder", "leaves", "models", "shadows", "events", "rules", "store", "graph")
"""Of the settings: what workers read, of the last when a dismissal expires."""


class Respawns(dict[int, float]):
    """When each worker was last started anew, by its number, as granian reads it to tell a crash loop.

    granian ends the whole server, workers that answer included, when one dies within seconds of being started anew.
    Kills may come so close. Here a server ends once it had to start MOST_RESPAWNS workers anew within a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: deque[float] = deque(maxlen=MOST_RESPAWNS)

    def __setitem__(self, worker: int, at_s: float) -> None:
        self._last.append(at_s)
        super().__setitem__(worker, at_s)

    def get(self, worker: int, default: Any = None) -> Any:
        looping = len(self._last) == MOST_RESPAWNS and self._last[-1] - self._last[0] < 60
        return super().get(worker, default) if looping else default


class Server(Granian):  # type: ignore[misc, valid-type]
    """granian that, told to stop by SIGTERM, first lets /readyz say so for a while, and only then closes its port."""

    drain_s = 0.0
    drain_file = Path()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.respawned_wrks = Respawns()

    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:
        drains = args[:1] == (signal.SIGTERM,) and self.drain_s and not self.drain_file.exists()
        self.drain_file.touch()
        if not drains:
            super().signal_handler_interrupt(*args, **kwargs)
            return
        waker = threading.Timer(self.drain_s, super().signal_handler_interrupt)
        waker.daemon = True
        waker.start()


def serve(store_uri: str, settings: Settings, host: str, port: int, workers: int) -> None:
    """Serves the store's current release until SIGINT or SIGTERM; each worker follows CURRENT by itself.

    Raises UsageError for a host that is not this machine or a store without a place for live facts, PymkError where
    another process listens on the port.
    """
    lines = _log_lines(settings.api.log_lines)
    own = {"version": 1, "disable_existing_loggers": False, "root": {"handlers": ["console"], "level": "WARNING"}}
    logging.config.dictConfig(lines | own)
    refuse_eviction(facts_uri(settings, store_uri), settings)
    adopt_erasures(store_uri, settings)
    address = free_address(guarded_host(store_uri, host), port)
    _let_early_workers_end()
    with tempfile.TemporaryDirectory(prefix="pymk-server-") as folder:
        os.environ.update(worker_environment(store_uri, settings, address))
        Server.drain_s, Server.drain_file = settings.api.drain_s, Path(folder) / "draining"
        os.environ[DRAIN_VARIABLE] = str(Server.drain_file)
        os.environ[SPARE_VARIABLE] = str(SPARE)
        if workers > 1:
            os.environ[METRICS_VARIABLE] = folder
        Server(
            APP,
            address=address,
            port=port,
            interface=Interfaces.WSGI,
            workers=workers,
            blocking_threads=threads_of(settings) + SPARE,
            factory=True,
            websockets=False,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADERS_WITHIN_MS),
            respawn_failed_workers=True,
            workers_kill_timeout=DRAIN_S,
            log_dictconfig=lines,
        ).serve()


def refuse_eviction(facts: str, settings: Settings) -> None:
    """Raises StoreError where live facts are in a Redis that would forget some of them. Of one that does not answer yet
    workers see to it: they take no events until they know that it would not."""
    try:
        policy = evicting_policy_at(facts, settings)
    except StoreError as error:
        log.warning("live facts cannot be asked yet: %s", error)
        return
    if policy:
        what = f"api.facts: the Redis at {shown(facts)} drops live facts when its memory is short ({policy})"
        raise StoreError(f"{what}: blocked and banned people would be shown again", NO_EVICTION)


def guarded_host(store_uri: str, host: str) -> str:
    """The host to listen on: this machine alone while the store has no API key, whatever was asked for.

    A store that cannot be read may have keys: workers let nobody in but by those that they knew last.
    """
    try:
        if KeyStore(open_store(store_uri)).listed():
            return host
    except StoreError as error:
        log.warning("the keys cannot be read, so only those known last open: %s", error)
        return host
    make = f"make one with `pymk key create --store {store_uri}`"
    if is_loopback(host):
        log.warning("no API key is configured, so only this machine is answered, without one; for others %s", make)
        return host
    fix = f"{make} and start the server again"
    log.warning("no API key is configured, so %s is listened on, not %s: %s", LOOPBACK, host, fix)
    return LOOPBACK


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _log_lines(lines: str) -> dict[str, Any]:
    """The server's own lines, in the form of the workers'."""
    plain = lines == "text" or (lines == "auto" and sys.stderr.isatty())
    handler = {
        "class": "logging.StreamHandler",
        "formatter": "lines",
        "stream": "ext://sys.stderr",
        "filters": ["threads"],
    }
    formatter = f"lookup_api.logs.{'PlainLines' if plain else 'JsonLines'}"
    return {
        "formatters": {"lines": {"()": formatter}},
        "filters": {"threads": {"()": "jobs.serve.but_for_parked_threads"}},
        "handlers": {"console": handler, "access": handler},
    }


def but_for_parked_threads() -> Callable[[logging.LogRecord], bool]:
    """granian warns of more threads than cores; all but a few of them are parked."""
    return lambda record: "Python threads" not in record.getMessage()


def free_address(
    host: str, port: int, port_by: str = "--port or api.port", host_by: str = "--host (or api.host)"
) -> str:
    """The IP address of `host`, IPv4 where it has one, on whose port nothing listens.

    granian's workers share their port, and so it would also share it with a server that is there already. port_by and
    host_by: what names the two, for errors.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host}: is no address: {error}", _hosts(host_by)) from None
    family, kind, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        with socket.socket(family, kind) as probe:
            # What an earlier server left behind does not matter, only one that listens now.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _unusable(error, host, port, port_by, host_by) from None
    return str(address[0])


def refuse_lake(store_uri: str) -> None:
    """Raises UsageError for a lake in place of a store: what is served would be kept among its tables. Raises what
    `open_store` does."""
    store = open_store(store_uri)
    with suppress(StoreError):  # of one that is away there may be copies on this machine
        folders = store.folders("")
        if CONNECTIONS.name in folders and RELEASES not in folders:
            raise UsageError(
                f"{store_uri}: is a lake, not a store: it has {CONNECTIONS.name}/ and no {RELEASES}/",
                "Give the folder or s3:// URI that `pymk run --store` wrote to.",
            )


def _hosts(host_by: str) -> str:
    return f"Give {host_by} 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses, or one of them."


def _unusable(error: OSError, host: str, port: int, port_by: str, host_by: str) -> PymkError:
    if error.errno == errno.EADDRINUSE:
        fix = f"Stop the server that listens there, or choose another port with {port_by}."
        return PymkError(f"port {port} on {host} is taken", fix)
    if error.errno == errno.EACCES:
        fix = f"Choose a port above 1023 with {port_by}."
        return UsageError(f"port {port} on {host} is not for this user", fix)
    return UsageError(f"--host {host}: is not an address of this machine: {error.strerror}", _hosts(host_by))


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


def worker_environment(store_uri: str, settings: Settings, host: str | None = None) -> dict[str, str]:
    """The store and every setting a worker reads, as variables that infra.settings.load understands.

    host: the address that is listened on, where it is not the setting's.
    """
    found = {STORE_VARIABLE: store_uri}
    for section in SECTIONS:
        for key, value in settings.section(section).items():
            text = ",".join(value) if isinstance(value, list) else str(value)
            found[f"{ENV_PREFIX}{section.upper()}__{key.upper()}"] = text
    if host is not None:
        found[f"{ENV_PREFIX}API__HOST"] = host
    return found
