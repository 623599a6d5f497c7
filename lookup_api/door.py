"""The door before Flask, as WSGI: who may come in, how much they may bring and how often.

It is passed by every request, and most of those it turns away never reach Flask. Only the paths named in OPEN need no
key; any path that is not known needs one, so that no spelling of a path goes round the key.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from infra.key_ring import Holder, KeyRing
from infra.keys import ADMIN, EVENTS, READ
from lookup_api.lean_flask import Answer
from lookup_api.load import Load
from lookup_api.logs import Sparing
from lookup_api.metrics import Metrics
from lookup_api.pages import PATHS
from lookup_api.problems import (
    Problem,
    Repeated,
    bad_parameter,
    body_too_large,
    no_key,
    overloaded,
    too_many,
    wrong_scope,
)
from lookup_api.rate_limits import RateLimit
from lookup_api.request_ids import RequestIds
from lookup_api.shedding import Queue
from lookup_api.spare_threads import SpareThreads
from lookup_api.tracing import Tracing

log = logging.getLogger(__name__)

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

OPEN = frozenset({*PATHS, "/healthz", "/readyz"})
"""Paths that tell nothing of a person or a release."""
USERS, EVENTS_PATH, METRICS = "/v1/users/", "/v1/events", "/metrics"
SCORE, SCORES = "/v1/score", "/v1/scores/"
ANY_KEY = ""
MAX_PATH = 2048


def scope_of(path: str) -> str:
    """What a key must be for to ask for this path."""
    if path.startswith(USERS):
        return ADMIN if "/mutual/" in path else READ
    if path.startswith(SCORES):
        return READ
    return {EVENTS_PATH: EVENTS, SCORE: READ, METRICS: ANY_KEY}.get(path, ADMIN)


@dataclass
class Door:
    """key_limit, user_limit: None for no limit. loopback: the server listens on this machine alone.

    Without any key in the store, and only where it listens on loopback, everybody on this machine may do everything.
    """

    app: App
    keys: KeyRing
    loopback: bool
    key_limit: RateLimit | None
    user_limit: RateLimit | None
    max_body_bytes: int
    queue: Queue
    spare: SpareThreads
    load: Load
    retry_after_s: int
    metrics: Metrics
    request_ids: RequestIds
    tracing: Tracing | None
    log_all: bool

    def __post_init__(self) -> None:
        self._sparing = Sparing(log)
        self._overloaded = Repeated(overloaded(self.retry_after_s))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        if not self.spare.knows:
            self.spare.learn(environ)
        if path in OPEN:
            if self.queue.passed(environ) or self.spare.parks(environ):
                start_response("204 No Content", [])
                return []
            return self.app(environ, start_response)
        if not self.queue.enter(environ):
            self.metrics.shed.inc()
            return self._overloaded.answer(path, self._request_id(environ))(environ, start_response)
        self.load.began()
        try:
            if self.log_all or self.tracing:
                return self._told(environ, path, start_response)
            return self._answer(environ, path, start_response)
        finally:
            self.load.ended()

    def _answer(self, environ: Environ, path: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        problem = self._objection(environ, path)
        if problem is None:
            return self.app(environ, start_response)
        return self._turned_away(problem, environ, path)(environ, start_response)

    def _objection(self, environ: Environ, path: str) -> Problem | None:
        """Why the request may not come in, None where it may."""
        if (objection := self._too_large(environ, path)) is not None:
            return objection
        keys = self.keys
        if self.loopback and keys.empty():
            if not (from_this_machine(environ.get("REMOTE_ADDR")) and names_this_machine(environ.get("HTTP_HOST"))):
                return no_key("No key is configured, so only this machine is answered; make one with `pymk key`.")
        else:
            presented = presented_key(environ)
            if presented is None:
                return no_key("Send an API key: Authorization: Bearer KEY, or X-Api-Key: KEY.")
            holder = keys.find(presented)
            if holder is None:
                return self._no_such_key()
            scope = scope_of(path)
            if scope and scope not in holder.scopes:
                return wrong_scope(scope)
            if self.key_limit is not None and (objection := self._key_too_often(holder)) is not None:
                return objection
        return self._user_too_often(path) if self.user_limit is not None else None

    def _too_large(self, environ: Environ, path: str) -> Problem | None:
        if len(path) > MAX_PATH:
            return bad_parameter(f"The path is longer than {MAX_PATH} bytes.")
        length = environ.get("CONTENT_LENGTH")
        if not length:
            return None
        if not length.isdecimal():
            return Problem(400, "invalid-body", "Content-Length is not a number.")
        if len(length) > 18 or int(length) > self.max_body_bytes:
            return body_too_large(self.max_body_bytes)
        return None

    def _no_such_key(self) -> Problem:
        if not self.keys.known():
            return Problem(503, "keys-unknown", "The keys cannot be read.", {"Retry-After": str(self.retry_after_s)})
        return no_key("The key is unknown, revoked or expired.")

    def _key_too_often(self, holder: Holder) -> Problem | None:
        assert self.key_limit is not None
        wait = self.key_limit.refuse(holder.key_id)
        return too_many("key", math.ceil(wait)) if wait else None

    def _user_too_often(self, path: str) -> Problem | None:
        if self.user_limit is None or not path.startswith(USERS):
            return None
        wait = self.user_limit.refuse(path[len(USERS) : len(USERS) + 21].partition("/")[0])
        return too_many("user", math.ceil(wait)) if wait else None

    def _turned_away(self, problem: Problem, environ: Environ, path: str) -> Answer:
        self.metrics.failed(problem.status)
        self.metrics.turned_away.labels(problem.name).inc()
        request_id = self._request_id(environ)
        self._sparing.warning(
            "turned away",
            request_id=request_id,
            status=problem.status,
            why=problem.name,
            path=path[:200],
            address=environ.get("REMOTE_ADDR"),
        )
        return problem.answer(path, request_id)

    def _told(self, environ: Environ, path: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """The same, with a span or a log line of it."""
        start = time.perf_counter()
        environ["HTTP_X_REQUEST_ID"] = request_id = self._request_id(environ)
        told: dict[str, Any] = {}

        def noted(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            told["status"] = int(line[:3])
            return start_response(line, headers, exc_info) if exc_info else start_response(line, headers)

        with self.tracing.request(environ) if self.tracing else nullcontext() as span:
            found = self._answer(environ, path, noted)
            told |= {name[5:]: environ[name] for name in ("pymk.route", "pymk.source") if name in environ}
            if span is not None:
                describe(span, told, request_id)
        if self.log_all:
            ms = round((time.perf_counter() - start) * 1e3, 3)
            method = environ["REQUEST_METHOD"]
            log.info(
                "answered", extra={"request_id": request_id, "method": method, "path": path[:200], "ms": ms} | told
            )
        return found

    def _request_id(self, environ: Environ) -> str:
        return self.request_ids.of(environ.get("HTTP_X_REQUEST_ID"))


def presented_key(environ: Mapping[str, Any]) -> str | None:
    found: str | None = environ.get("HTTP_AUTHORIZATION")
    if found is not None and found[:7].lower() == "bearer ":
        return found[7:].strip()
    return environ.get("HTTP_X_API_KEY")


@lru_cache(256)
def from_this_machine(address: str | None) -> bool:
    """A peer without an address came through a socket of this machine."""
    if not address or address == "127.0.0.1":
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


@lru_cache(256)
def names_this_machine(host: str | None) -> bool:
    """Whether a Host header names this machine: a page elsewhere can have its own name lead here (DNS rebinding)."""
    if not host:
        return True
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name == "localhost" or name.endswith(".localhost") or (name != "" and from_this_machine(name.strip("[]")))


def describe(span: Any, told: Mapping[str, Any], request_id: str) -> None:
    """Puts what became of a request onto its span."""
    span.update_name(f"GET {told['route']}" if "route" in told else "turned away")
    span.set_attribute("pymk.request_id", request_id)
    span.set_attribute("http.response.status_code", told.get("status", 500))
    for name in ("route", "source"):
        if name in told:
            span.set_attribute("http.route" if name == "route" else "pymk.source", told[name])
