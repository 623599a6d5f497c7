"""The routes that score: now, or by and by under an id. They parse and serialise; nothing is decided here."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from flask import request

from lookup_api.bodies import Bodies
from lookup_api.deadline import Deadline
from lookup_api.facts_access import FactsAccess
from lookup_api.headers import JSON, NO_STORE, SAFE
from lookup_api.later_scores import LaterScores
from lookup_api.lean_flask import Answer, LeanFlask
from lookup_api.load import Load
from lookup_api.metrics import Metrics
from lookup_api.parameters import parse_later
from lookup_api.problems import Problem, no_release, too_many
from lookup_api.rate_limits import RateLimit
from lookup_api.release_watch import ReleaseWatch
from lookup_api.request_ids import RequestIds
from lookup_api.score_request import ScoreQuery, parse_score_query
from lookup_api.scores import Scoring

SCORE, SCORES = "/v1/score", "/v1/scores/<work_id>"
SOURCE, LATER = "score", "score_later"
"""In metrics, as the source of an answer; the second where a request is queued or asked for again."""


@dataclass(frozen=True)
class ScoreRoutes:
    """most: candidates in one request. deadline_s: for an answer. later: None where nothing is queued. user_limit: None
    for no limit."""

    watch: ReleaseWatch
    scoring: Scoring
    later: LaterScores | None
    facts: FactsAccess
    metrics: Metrics
    load: Load
    request_ids: RequestIds
    bodies: Bodies
    user_limit: RateLimit | None
    most: int
    deadline_s: float
    retry_after_s: int

    def register(self, app: LeanFlask) -> None:
        def add(path: str, view: Callable[..., Answer], method: str) -> None:
            app.add_url_rule(path, view.__name__, view, methods=[method], provide_automatic_options=False)

        add(SCORE, self.score, "POST")
        add(SCORES, self.scores, "GET")

    def score(self) -> Answer:
        """Scores of the people that the body names, or with async=1 an id under which they will be found."""
        start, environ = time.monotonic(), request.environ
        is_later = parse_later(environ.get("QUERY_STRING", ""))
        with self.bodies.posted(environ) as body:
            query = parse_score_query(body, self.most)
            self._refuse_too_often(query.user_id)
            told = self._queued(query) if is_later else {}
        if is_later:
            return self._answered(LATER, told, start, "202 Accepted", ("Location", f"/v1/scores/{told['id']}"))
        release = self.watch.take()
        if release is None:
            raise no_release(self.retry_after_s)
        try:
            deadline = Deadline.after(self.deadline_s)
            facts = self.facts.of(query.user_id)
            told = self.scoring.answer(query, release, facts, deadline, self.load.level)
        finally:
            release.give_back()
        environ["pymk.source"] = SOURCE
        return self._answered(SOURCE, told, start)

    def scores(self, work_id: str) -> Answer:
        """What became of a request that was queued."""
        start = time.monotonic()
        if self.later is None:
            raise Problem(404, "no-such-request", "This server queues nothing.")
        with self.bodies.aside():
            work = self.later.look(work_id)
        told = self.later.told(work_id, work)
        line = "200 OK" if told["status"] in ("done", "failed") else "202 Accepted"
        return self._answered(LATER, told, start, line)

    def _refuse_too_often(self, user_id: int) -> None:
        """A user may be asked for as often as for lists, which the path names already at the door."""
        wait = self.user_limit.refuse(str(user_id)) if self.user_limit is not None else 0.0
        if wait:
            raise too_many("user", math.ceil(wait))

    def _queued(self, query: ScoreQuery) -> dict[str, Any]:
        if self.later is None:
            later = {"Retry-After": str(self.retry_after_s)}
            raise Problem(503, "queue-full", "This server queues nothing.", later)
        with self.load.resting():
            return self.later.put(query)

    def _answered(
        self, source: str, told: dict[str, Any], start: float, status: str = "200 OK", *headers: tuple[str, str]
    ) -> Answer:
        request_id = self.request_ids.of(request.environ.get("HTTP_X_REQUEST_ID"))
        body = orjson.dumps(told | {"request_id": request_id}, option=orjson.OPT_SERIALIZE_NUMPY)
        self.metrics.requests.labels(source, status[:3]).inc()
        self.metrics.seconds.labels(source).observe(time.monotonic() - start)
        return Answer(body, [("Content-Type", JSON), ("X-Request-Id", request_id), *headers, *NO_STORE, *SAFE], status)
