"""A leaf in another process: it is sent exactly the columns that a version of a model takes.

The list of a version's columns is had of the leaf before the first request, checked, and kept: a version never changes.
While it is missing or corrupt all columns are sent, and counted; scores are the same either way.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.flight as flight

from infra.model_routes import ModelRef
from infra.serving_settings import LeafSettings
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves import wire
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.leaf_metrics import SenderMetrics
from lookup_api.leaves.protocol import ENOUGH_S, LeafAway, LeafFailed, LeafLate, LeafLost, Timed
from lookup_api.leaves.wire import Reply, Status, WireError
from lookup_api.ranking.scorers import Array, Float32

log = logging.getLogger(__name__)

NETWORK_SHARE = 0.05
"""Of the time that is left, what is kept for the way back."""
MOST_LISTS = 1024
"""Lists that are kept of a leaf; beyond that all are had anew as they are asked for."""
LIST_WAIT_S = 10.0
"""Between tries to have the list of a version's columns, where it was corrupt."""
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
"""A connection of its own for every leaf, made anew soon after the leaf is back."""


@dataclass(frozen=True, slots=True)
class _List:
    columns: ColumnList
    schema: pa.Schema


class RemoteLeaf:
    """Safe to use from any thread; connects when it is first asked, so that a process may fork before."""

    def __init__(
        self, address: str, settings: LeafSettings, counts: SenderMetrics, breaker: Breaker, spare: bool = False
    ) -> None:
        """address: host:port. spare: is scored only while the leaf scores for nobody else; LeafBusy otherwise."""
        self.address = address
        self.breaker = breaker
        self._longest_s = settings.timeout_ms / 1000
        self._enough_s = min(ENOUGH_S, self._longest_s / 2)
        self._replied_s = 0.0
        self._counts = counts
        self._lz4 = settings.lz4
        self._spare = spare
        self._client: flight.FlightClient | None = None
        self._lists: dict[ModelRef, _List] = {}
        self._corrupt: dict[ModelRef, Deadline] = {}
        self._lock = threading.Lock()

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """Raises as every leaf does; LeafAway where the leaf itself does not answer."""
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Raises as `score`."""
        deadline = deadline.within(self._longest_s)
        found = self._list(model, deadline)
        if found is None:
            return self._score_all(model, columns, deadline, "missing")
        trimmed = found.columns.trimmed(columns)
        body = wire.encode_trimmed(trimmed, found.schema, self._lz4)
        reply = self._asked(wire.SCORE, model, deadline, wire.TRIMMED, found.columns.digest, body)
        if reply.status == Status.OTHER_LIST:
            self._is_corrupt(model, reply.why)
            return self._score_all(model, columns, deadline, "corrupt")
        whole = sum(column.nbytes for column in columns.values())
        self._counts.sent(body.size, max(0, whole - sum(column.nbytes for column in trimmed)), reply.discarded)
        return _scores(reply, model)

    def columns_of(self, model: ModelRef, deadline: Deadline) -> ColumnList | None:
        """The columns that are sent for a version of a model; None where all are."""
        found = self._list(model, deadline.within(self._longest_s))
        return found.columns if found else None

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _score_all(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline, why: str) -> Timed:
        """Sends every column, which is never wrong, and counts it."""
        self._counts.untrimmed.labels(str(model), why).inc()
        self._counts.told[f"untrimmed {why}"] += 1
        body = wire.encode_all(columns, self._lz4)
        reply = self._asked(wire.SCORE, model, deadline, wire.ALL, bytes(16), body)
        self._counts.sent(body.size, 0, reply.discarded)
        return _scores(reply, model)

    def _list(self, model: ModelRef, deadline: Deadline) -> _List | None:
        """The list of a version's columns, had once; None where the leaf gives none that holds."""
        found = self._lists.get(model)
        if found is not None:
            return found
        again = self._corrupt.get(model)
        if again is not None and again.left_s > 0:
            return None
        reply = self._asked(wire.COLUMNS, model, deadline, wire.ALL, bytes(16), pa.py_buffer(b""))
        if reply.status != Status.LIST:
            raise _raised(reply, model)
        try:
            columns = wire.decode_list(reply.why.encode(), model)
        except WireError as error:
            self._is_corrupt(model, str(error))
            return None
        made = _List(columns, wire.schema_of(columns))
        with self._lock:
            self._lists = {**(self._lists if len(self._lists) < MOST_LISTS else {}), model: made}
            self._corrupt.pop(model, None)
        return made

    def _is_corrupt(self, model: ModelRef, why: str) -> None:
        """Forgets the list, to be had again in a while."""
        log.error("%s: the list of columns from %s is corrupt, so all are sent: %s", model, self.address, why)
        with self._lock:
            self._lists = {ref: one for ref, one in self._lists.items() if ref != model}
            self._corrupt[model] = Deadline.after(LIST_WAIT_S)

    def _asked(
        self, action: str, model: ModelRef, deadline: Deadline, form: int, digest: bytes, body: pa.Buffer
    ) -> Reply:
        """Raises LeafAway, LeafLate."""
        asked_s, left_s = time.monotonic(), deadline.left_s
        if left_s <= 0:
            raise LeafLate(f"no time left for {model} at {self.address}")
        if not self.breaker.allows():
            raise LeafAway(f"{self.address}: did not answer and is left alone for a while")
        request = wire.encode_request(model, left_s * (1 - NETWORK_SHARE), form, digest, body, self._spare)
        try:
            call = flight.FlightCallOptions(timeout=max(left_s, 0.001))
            (result,) = self._connected().do_action(flight.Action(action, request), call)
            reply = wire.decode_reply(result.body.to_pybytes())
        except flight.FlightTimedOutError:
            self._late(asked_s, left_s)
            raise LeafLate(f"{self.address}: no answer for {model} within {left_s * 1e3:.0f} ms") from None
        except (pa.ArrowException, WireError, ValueError) as error:
            lost = _is_lost(error)
            self._left_out("lost" if lost else "away")
            said = f"{self.address}: {str(error).splitlines()[0][:200]}"
            raise (LeafLost if lost else LeafAway)(said) from None
        if reply.status == Status.LEAVING:
            self._left_out("leaving")
            raise LeafAway(f"{self.address}: {reply.why}")
        self._replied_s = time.monotonic()
        self.breaker.succeeded()
        return reply

    def _late(self, asked_s: float, left_s: float) -> None:
        """Speaks against the leaf only where there was time, and it said nothing to anybody meanwhile: otherwise the
        model is slow, or the time was used up before."""
        self._counts.left_out.labels(self.address, "late").inc()
        if left_s >= self._enough_s and self._replied_s < asked_s:
            self.breaker.failed()

    def _left_out(self, why: str) -> None:
        self._counts.left_out.labels(self.address, why).inc()
        self.breaker.failed()

    def _connected(self) -> flight.FlightClient:
        with self._lock:
            if self._client is None:
                self._client = flight.FlightClient(f"grpc://{self.address}", generic_options=CHANNEL)
            return self._client


def _is_lost(error: Exception) -> bool:
    """Whether a connection that stood broke, rather than none being made."""
    said = str(error).lower()
    refused = ("failed to connect", "connection refused", "no route", "name resolution", "dns")
    return isinstance(error, flight.FlightError) and not any(one in said for one in refused)


def _scores(reply: Reply, model: ModelRef) -> Timed:
    if reply.scores is None:
        raise _raised(reply, model)
    return Timed(reply.scores, reply.ms)


def _raised(reply: Reply, model: ModelRef) -> Exception:
    """What the leaf raised, as it is raised here."""
    what = reply.why or f"{model}: status {reply.status}"
    return next((kind for kind, status in wire.RAISED.items() if status == reply.status), LeafFailed)(what)
