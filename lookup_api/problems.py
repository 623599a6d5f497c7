"""Errors as problem JSON (RFC 9457): one shape for every error of the API, and nothing internal in any of them."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, request
from werkzeug.exceptions import HTTPException

from infra.errors import CorruptArtifact, StoreError
from lookup_api.headers import NO_STORE, SAFE
from lookup_api.lean_flask import Answer
from lookup_api.logs import Sparing
from lookup_api.request_ids import RequestIds

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An error to answer with. name: last part of the problem type, stable, for programs; detail: for people."""

    def __init__(self, status: int, name: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = headers or {}

    def answer(self, instance: str, request_id: str) -> Answer:
        """instance: the path that was asked for."""
        body = {
            "type": f"urn:pymk:problem:{self.name}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
        }
        headers = [("Content-Type", CONTENT_TYPE), ("X-Request-Id", request_id), *NO_STORE, *SAFE]
        return Answer(orjson.dumps(body), headers + list(self.headers.items()), status_line(self.status))


class Repeated:
    """A problem that is answered often, made but for its path and request id."""

    def __init__(self, problem: Problem) -> None:
        made = problem.answer("", "")
        self._line = made.line
        self._headers = [header for header in made.fields if header[0] != "X-Request-Id"]
        self._body = made.body.removesuffix(b'"","request_id":""}')

    def answer(self, instance: str, request_id: str) -> Answer:
        body = b"".join((self._body, orjson.dumps(instance), b',"request_id":', orjson.dumps(request_id), b"}"))
        return Answer(body, [*self._headers, ("X-Request-Id", request_id)], self._line)


def status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def bad_parameter(detail: str) -> Problem:
    return Problem(400, "invalid-parameter", detail)


def no_release(retry_after_s: int) -> Problem:
    return Problem(503, "no-release", "No release is served yet.", _retry(retry_after_s))


def draining() -> Problem:
    return Problem(503, "draining", "This server is stopping and takes no new work.", _retry(1))


def overloaded(retry_after_s: int) -> Problem:
    return Problem(503, "overloaded", "More is asked than this server can answer.", _retry(retry_after_s))


def too_many(what: str, retry_after_s: int) -> Problem:
    return Problem(429, "too-many-requests", f"The rate limit of this {what} is reached.", _retry(retry_after_s))


def body_too_large(most_bytes: int) -> Problem:
    return Problem(413, "body-too-large", f"A body has at most {most_bytes} bytes here.")


def no_key(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="pymk"'})


def wrong_scope(scope: str) -> Problem:
    challenge = f'Bearer realm="pymk", error="insufficient_scope", scope="{scope}"'
    return Problem(403, "forbidden", f"The key lacks the scope {scope}.", {"WWW-Authenticate": challenge})


def _retry(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(seconds)}


def unreadable(retry_after_s: int) -> Problem:
    return Problem(503, "store-unreadable", "What is stored cannot be read now.", _retry(retry_after_s))


def register(app: Flask, count: Callable[[int], None], request_ids: RequestIds, retry_after_s: int) -> None:
    """Makes every error of the app, the framework's included, a problem. count: is told the status of each.

    What the caller did wrong is logged, without what they sent; of failures whoever met them has said why.
    """

    def answer(problem: Problem) -> Answer:
        count(problem.status)
        found = request_id()
        if 400 <= problem.status < 500:
            sparing_refused.info(
                "refused",
                request_id=found,
                status=problem.status,
                why=problem.name,
                method=request.method,
                path=request.path[:200],
                address=request.environ.get("REMOTE_ADDR"),
            )
        return problem.answer(request.path, found)

    def request_id() -> str:
        return request_ids.of(request.environ.get("HTTP_X_REQUEST_ID"))

    def unforeseen(error: Exception) -> Answer:
        request.environ["HTTP_X_REQUEST_ID"] = found = request_id()
        log.error("%s failed", request.path, exc_info=error, extra={"request_id": found})
        return answer(Problem(500, "internal", "The server failed to answer. The failure was logged."))

    sparing, sparing_refused = Sparing(log), Sparing(log)

    def away(error: Exception) -> Answer:
        sparing.warning("what is stored cannot be read", path=request.path[:200], why=str(error))
        return answer(unreadable(retry_after_s))

    app.register_error_handler(Problem, answer)
    app.register_error_handler(StoreError, away)
    app.register_error_handler(CorruptArtifact, away)
    app.register_error_handler(HTTPException, lambda error: answer(_of_framework(error)))
    app.register_error_handler(Exception, unforeseen)


def _of_framework(error: HTTPException) -> Problem:
    status = error.code or 500
    name = HTTPStatus(status).phrase.lower().replace(" ", "-")
    kept: dict[str, Any] = {k: v for k, v in error.get_headers() if k.lower() in ("allow", "location", "retry-after")}
    return Problem(status, name, _DETAILS.get(status, HTTPStatus(status).description), kept)


_DETAILS = {
    404: "There is no such path.",
    405: "This path does not take that method; the Allow header lists those it takes.",
    413: "The body is larger than this server takes.",
}
