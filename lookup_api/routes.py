"""The HTTP surface of the API proper: parses, asks, serialises. Nothing is decided here."""

import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import orjson
from flask import request

from infra.errors import PymkError
from lookup_api.bodies import Bodies, RecordedAside
from lookup_api.deadline import Deadline
from lookup_api.events import take_events
from lookup_api.facts_access import FactsAccess
from lookup_api.headers import JSON, NO_STORE, REVALIDATED, SAFE, accepts_gzip, knows
from lookup_api.ladder import Query
from lookup_api.lean_flask import Answer, LeanFlask
from lookup_api.load import FULL, Load
from lookup_api.lookup import Lookup, Told
from lookup_api.metrics import Metrics
from lookup_api.mutual import mutual_friends
from lookup_api.parameters import parse_id, parse_query
from lookup_api.problems import Problem, draining, no_release
from lookup_api.release_list import ReleaseList
from lookup_api.release_watch import ReleaseWatch
from lookup_api.request_ids import RequestIds
from lookup_api.served_release import ServedRelease
from lookup_api.tracing import Tracing

log = logging.getLogger(__name__)

RECOMMENDATIONS = "/v1/users/<user_id>/recommendations"
_FASTEST, _AS_GZIP = 1, 31


@dataclass(frozen=True)
class Limits:
    """events: in one request. gzip_bytes: of an answer that is worth compressing. deadline_s: for an answer."""

    events: int
    gzip_bytes: int
    retry_after_s: int
    deadline_s: float


@dataclass(frozen=True)
class Routes:
    watch: ReleaseWatch
    lookup: Lookup
    facts: FactsAccess
    metrics: Metrics
    load: Load
    limits: Limits
    request_ids: RequestIds
    is_draining: Callable[[], bool]
    release_list: ReleaseList
    tracing: Tracing | None
    bodies: Bodies

    def register(self, app: LeanFlask) -> None:
        def add(path: str, view: Callable[..., Answer], method: str = "GET") -> None:
            app.add_url_rule(path, view.__name__, view, methods=[method], provide_automatic_options=False)

        add(RECOMMENDATIONS, self.recommendations)
        add("/v1/users/<user_id>/mutual/<other_id>", self.mutual)
        add("/v1/events", self.events, "POST")
        add("/v1/releases", self.releases)
        add("/healthz", self.healthz)
        add("/readyz", self.readyz)
        add("/metrics", self.metrics_text)
        app.put_first("recommendations")

    def recommendations(self, user_id: str) -> Answer:
        start = time.monotonic()
        environ = request.environ
        query = parse_query(user_id, environ.get("QUERY_STRING", ""))
        release = self.watch.take()
        if release is None:
            raise no_release(self.limits.retry_after_s)
        try:
            told = self._answered(query, release) if self.tracing is None else self._traced(query, release)
        finally:
            release.give_back()
        answer = told.values
        answer["request_id"] = request_id = self.request_ids.of(environ.get("HTTP_X_REQUEST_ID"))
        source = answer["source"]
        environ["pymk.route"], environ["pymk.source"] = RECOMMENDATIONS, source
        found = self._conditional(environ, told, orjson.dumps(answer), request_id)
        self.metrics.answered(source, time.monotonic() - start)
        return found

    def _answered(self, query: Query, release: ServedRelease) -> Told:
        deadline = Deadline.after(self.limits.deadline_s)
        return self.lookup.answer(query, release, self.facts.of(query.user_id), deadline, self.load.level)

    def _traced(self, query: Query, release: ServedRelease) -> Told:
        """The same, with a span for each of its two steps."""
        assert self.tracing is not None
        deadline = Deadline.after(self.limits.deadline_s)
        with self.tracing.step("live facts"):
            facts = self.facts.of(query.user_id)
        with self.tracing.step("ladder") as span:
            told = self.lookup.answer(query, release, facts, deadline, self.load.level)
            for name in ("source", "cache", "degraded", "release"):
                span.set_attribute(f"pymk.{name}", told.values[name])
        return told

    def mutual(self, user_id: str, other_id: str) -> Answer:
        """Whom the two both know: what the Explorer draws."""
        viewer, other = parse_id(user_id, "user_id"), parse_id(other_id, "other_id")
        with self.watch.hold() as release:
            if release is None:
                raise no_release(self.limits.retry_after_s)
            found = mutual_friends(viewer, other, release, self.facts.of(viewer))
        return Answer(orjson.dumps(found), self._headers(JSON))

    def events(self) -> Answer:
        with self.bodies.posted(request.environ) as body:
            facts = RecordedAside(self.facts, self.load)
            told = take_events(body, facts, self.limits.events, self.limits.retry_after_s)
        self.metrics.took_events(told)
        return Answer(orjson.dumps(told), self._headers(JSON), "202 Accepted")

    def releases(self) -> Answer:
        with self.watch.hold() as release:
            served = release.release_id if release else None
        try:
            body = self.release_list.json(served)
        except PymkError as error:
            log.error("the releases cannot be listed: %s", error)
            later = {"Retry-After": str(self.limits.retry_after_s)}
            raise Problem(503, "store-unreadable", "The store cannot be read now.", later) from error
        return Answer(body, self._headers(JSON))

    def healthz(self) -> Answer:
        """Alive: the process answers. Nothing else is asked, as nothing else is mended by a restart."""
        return Answer(b'{"status":"alive"}', self._headers(JSON))

    def readyz(self) -> Answer:
        """Ready for requests: a release is served and the server is not stopping."""
        if self.is_draining():
            raise draining()
        with self.watch.hold() as release:
            if release is None:
                raise no_release(self.limits.retry_after_s)
            body: dict[str, Any] = {"status": "ready", "release": release.release_id, "as_of": release.as_of}
        body["live_facts"] = "failing" if self.facts.breaker.open else "read"
        return Answer(orjson.dumps(body), self._headers(JSON))

    def metrics_text(self) -> Answer:
        return Answer(self.metrics.exposition(), self._headers(self.metrics.content_type))

    def _headers(self, content_type: str) -> list[tuple[str, str]]:
        request_id = self.request_ids.of(request.environ.get("HTTP_X_REQUEST_ID"))
        return [("Content-Type", content_type), ("X-Request-Id", request_id), *NO_STORE, *SAFE]

    def _conditional(self, environ: dict[str, Any], told: Told, body: bytes, request_id: str) -> Answer:
        """The answer, or 304 where the caller has it; compressed where that pays. The tag is of what is shown, from
        where and why, and so weak: age, request id and cache differ."""
        values = told.values
        tag = tag_of(told.mark, values["user_id"], values["source"], values["release"], values["degraded"])
        headers = [("Content-Type", JSON), ("X-Request-Id", request_id), ("ETag", tag), *REVALIDATED, *SAFE]
        if knows(environ, tag):
            return Answer(b"", headers[1:], "304 Not Modified")
        if len(body) >= self.limits.gzip_bytes and self.load.level == FULL and accepts_gzip(environ):
            headers.append(("Content-Encoding", "gzip"))
            body = zlib.compress(body, _FASTEST, _AS_GZIP)
        return Answer(body, headers)


def tag_of(mark: bytes, user_id: str, source: str, release_id: str, degraded: bool) -> str:
    """A hash of who is shown, to whom, from where and why.

    SHA-1, as processors have instructions for it: nobody gains by two answers of one tag, which are both their own.
    """
    told = sha1(f"{user_id}|{source}|{release_id}|".encode() + mark, usedforsecurity=False)
    return f'W/"{told.hexdigest()[:24]}{"-degraded" if degraded else ""}"'
