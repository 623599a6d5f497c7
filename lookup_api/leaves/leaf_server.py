"""A process that scores for others by models of the registry, over Arrow Flight.

`pymk leaf` starts it. It trusts whoever reaches its port: bind it to a network of the API's workers alone.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.flight as flight
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server

from infra.errors import PymkError
from infra.model_routes import ModelRef
from infra.settings import Settings
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves import wire
from lookup_api.leaves.devices import devices_of
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.process_memory import ProcessMemory
from lookup_api.leaves.residents import Resident
from lookup_api.leaves.wire import Status, WireError
from lookup_api.ranking.scorers import KINDS, Array

log = logging.getLogger(__name__)

SAYS = {
    wire.SCORE: "scores of columns; see lookup_api.leaves.wire",
    wire.COLUMNS: "the columns that a version of a model takes, as JSON",
    wire.HEALTH: "whether it is ready, the models that are open or hang, and devices by kind of model, as JSON",
    wire.METRICS: "its metrics, as Prometheus reads them",
}
SWITCH_S = 0.0005
"""How soon a thread that runs Python gives way to one that waits: a model that loads holds requests up no longer."""


class LeafServer(flight.FlightServerBase):  # type: ignore[misc]
    """Answers on one address until `end`; takes requests as soon as it is made."""

    def __init__(self, location: str, leaf: LocalLeaf, registry: CollectorRegistry) -> None:
        """location: grpc://host:port, where port 0 is any that is free."""
        super().__init__(location)
        self._leaf = leaf
        self._registry = registry
        self._schemas: dict[ModelRef, tuple[Resident, pa.Schema]] = {}
        self._in_hand = 0
        self._changed = threading.Condition()
        self.leaving = False

    def list_actions(self, context: Any) -> list[tuple[str, str]]:
        return list(SAYS.items())

    def do_action(self, context: Any, action: Any) -> Sequence[bytes]:
        if action.type == wire.SCORE:
            return [self._answered(action.body, self._score)]
        if action.type == wire.COLUMNS:
            return [self._answered(action.body, self._columns)]
        if action.type == wire.HEALTH:
            return [orjson.dumps(self.health())]
        if action.type == wire.METRICS:
            return [generate_latest(self._registry)]
        raise flight.FlightServerError(f"{action.type!r}: no such action; there are {', '.join(SAYS)}")

    def health(self) -> dict[str, Any]:
        models = self._leaf.models
        names = sorted(str(one.ref) for one in models.open_models())
        hanging = sorted(map(str, self._leaf.hanging()))
        ready = not self.leaving and not hanging
        state = {"ready": ready, "in_hand": self._in_hand, "models": names, "bytes": models.size_bytes}
        return state | {"hanging": hanging, "devices": dict(self._leaf.devices)}

    def end(self, within_s: float) -> None:
        """Takes no more requests, waits for those in hand, at most so long, and stops."""
        self.leaving = True
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_hand == 0, within_s):
                log.warning("%d requests were in hand for longer than %.0f s", self._in_hand, within_s)
        self.shutdown()
        self._leaf.close()

    def _answered(self, body: pa.Buffer, answer: Callable[[wire.Asked], bytes]) -> bytes:
        """The reply, whatever became of the request."""
        with self._held() as is_taken:
            if not is_taken:
                return wire.encode_reply(Status.LEAVING, why="this leaf is told to stop")
            try:
                return answer(wire.decode_request(body))
            except PymkError as error:
                kinds = (status for kind, status in wire.RAISED.items() if isinstance(error, kind))
                status = next(kinds, Status.FAILED)
                return wire.encode_reply(status, why=str(error))
            except WireError as error:
                return wire.encode_reply(Status.USAGE, why=str(error))
            except Exception as error:  # a caller is told of a fault here as of any other failure
                log.exception("unforeseen")
                return wire.encode_reply(Status.FAILED, why=f"{type(error).__name__}: {error}")

    @contextmanager
    def _held(self) -> Iterator[bool]:
        """Whether a request is taken; it is in hand meanwhile."""
        with self._changed:
            is_taken = not self.leaving
            self._in_hand += is_taken
        try:
            yield is_taken
        finally:
            with self._changed:
                self._in_hand -= is_taken
                self._changed.notify_all()

    def _columns(self, asked: wire.Asked) -> bytes:
        resident = self._leaf.resident(asked.model, Deadline.after(asked.left_s))
        return wire.encode_reply(Status.LIST, why=wire.encode_list(resident.columns))

    def _score(self, asked: wire.Asked) -> bytes:
        deadline = Deadline.after(asked.left_s)
        resident = self._leaf.resident(asked.model, deadline)
        discarded = 0
        if asked.form == wire.TRIMMED:
            if asked.digest != resident.columns.digest:
                return wire.encode_reply(Status.OTHER_LIST, why=f"{asked.model}: cut by another list of columns")
            packed = wire.decode_trimmed(asked.body, self._schema(resident), resident.columns)
            inputs = resident.columns.inputs_of_packed(packed)
        else:
            columns = wire.decode_all(asked.body)
            inputs = resident.columns.inputs_of(resident.columns.trimmed(columns))
            discarded = _bytes_but_for(columns, resident)
        scores, ms = self._leaf.score_inputs(resident, inputs, deadline, asked.spare)
        return wire.encode_reply(Status.OK, scores, discarded=discarded, ms=ms)

    def _schema(self, resident: Resident) -> pa.Schema:
        """Of its columns; made once for each model that is open."""
        known = self._schemas.get(resident.ref)
        if known is None or known[0] is not resident:
            open_now = {one.ref: one for one in self._leaf.models.open_models()}
            kept = {ref: one for ref, one in self._schemas.items() if open_now.get(ref) is one[0]}
            known = (resident, wire.schema_of(resident.columns))
            self._schemas = {**kept, resident.ref: known}
        return known[1]


def _bytes_but_for(columns: Mapping[str, Array], resident: Resident) -> int:
    """Bytes of the columns that the model does not name."""
    named = set(resident.spec.columns)
    return sum(column.nbytes for name, column in columns.items() if name not in named)


def serve_leaf(store_uri: str, settings: Settings, host: str, port: int, metrics_port: int | None) -> None:
    """Serves until SIGTERM or SIGINT; then it finishes what it has in hand.

    metrics_port: of this machine, where Prometheus finds /metrics over HTTP; None for nowhere. Raises PymkError where
    models are to score on a GPU and there is none.
    """
    stop, devices = threading.Event(), devices_of(settings.leaves.device)
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: stop.set())
    sys.setswitchinterval(SWITCH_S)
    for module, _ in KINDS.values():
        import_module(module)  # here, not while requests wait
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(ProcessMemory())
    leaf = LocalLeaf(store_uri, settings.leaves, HostMetrics(registry), _breakers(settings), devices)
    where = f"[{host}]" if ":" in host else host
    server = LeafServer(f"grpc://{where}:{port}", leaf, registry)
    if metrics_port is not None:
        start_http_server(metrics_port, host, registry)
    chosen = ", ".join(f"{kind} on {device}" for kind, device in devices.items())
    log.info("a leaf of %s on %s:%d: %s", store_uri, host, server.port, chosen)
    while not stop.wait(3600):
        pass
    start = time.monotonic()
    server.end(settings.leaves.drain_s)
    log.info("the leaf on %s:%d has ended, after %.1f s", host, port, time.monotonic() - start)


def _breakers(settings: Settings) -> Callable[[str], Breaker]:
    ladder = settings.ladder
    return lambda name: Breaker(name, ladder.breaker_failures, ladder.breaker_wait_s)
