"""Errors as problem JSON (RFC 9457): one shape for every error of the API, and nothing internal in any of them."""

import logging
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus

import orjson
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Problem(Exception):
    """An error to answer with. name: last part of the problem type, stable, for programs; detail: for people."""

    def __init__(self, status: int, name: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = headers or {}

    def response(self, instance: str, request_id: str) -> Response:
        body = {
            "type": f"urn:pymk:problem:{self.name}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        headers = {"Cache-Control": "no-store", "X-Request-Id": request_id, **self.headers}
        return Response(orjson.dumps(body), self.status, headers, content_type=CONTENT_TYPE)


def bad_parameter(detail: str) -> Problem:
    return Problem(400, "invalid-parameter", detail)


def no_release(retry_after_s: int) -> Problem:
    return Problem(503, "no-release", "No release is served yet.", {"Retry-After": str(retry_after_s)})


def register(app: Flask, count: Callable[[int], None]) -> None:
    """Makes every error of the app, the framework's included, a problem. count: is told the status of each."""

    def answer(problem: Problem) -> Response:
        count(problem.status)
        return problem.response(request.path, parse_request_id(request.headers.get("X-Request-Id")))

    def unforeseen(error: Exception) -> Response:
        request.environ["HTTP_X_REQUEST_ID"] = found = parse_request_id(request.headers.get("X-Request-Id"))
        log.error("request %s failed: %s", found, request.path, exc_info=error)
        return answer(Problem(500, "internal", "The server failed to answer. The failure was logged."))

    app.register_error_handler(Problem, answer)
    app.register_error_handler(HTTPException, lambda error: answer(_of_framework(error)))
    app.register_error_handler(Exception, unforeseen)


def parse_request_id(header: str | None) -> str:
    """The caller's X-Request-Id where it is a token of at most 128 characters, else a new one."""
    if header is not None and _TOKEN.fullmatch(header):
        return header
    return secrets.token_hex(8)


def _of_framework(error: HTTPException) -> Problem:
    status = error.code or 500
    name = HTTPStatus(status).phrase.lower().replace(" ", "-")
    kept = {k: v for k, v in error.get_headers() if k.lower() in ("allow", "location", "retry-after")}
    return Problem(status, name, _DETAILS.get(status, HTTPStatus(status).description), kept)


_DETAILS = {
    404: "There is no such path.",
    405: "This path does not take that method; the Allow header lists those it takes.",
}
