"""The HTTP surface: parses, asks, serialises. Nothing is decided here."""

import time

import orjson
from flask import Flask, Response, request

from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.parameters import parse_query
from lookup_api.problems import no_release, parse_request_id
from lookup_api.release_watch import ReleaseWatch

JSON = "application/json"
NO_STORE = "no-store"
"""Answers depend on live facts and on the release of the moment."""


def register(app: Flask, watch: ReleaseWatch, lookup: Lookup, metrics: Metrics, retry_after_s: int) -> None:
    """Adds the routes of the API to `app`."""

    def recommendations(user_id: str) -> Response:
        start = time.perf_counter()
        environ = request.environ
        query = parse_query(user_id, environ.get("QUERY_STRING", ""))
        release = watch.take()
        if release is None:
            raise no_release(retry_after_s)
        try:
            answer = lookup.answer(query, release)
        finally:
            release.give_back()
        request_id = parse_request_id(environ.get("HTTP_X_REQUEST_ID"))
        answer["request_id"] = request_id
        headers = [("Content-Type", JSON), ("X-Request-Id", request_id), ("Cache-Control", NO_STORE)]
        response = Response(orjson.dumps(answer), 200, headers)
        metrics.answered(answer["source"], time.perf_counter() - start)
        return response

    def healthz() -> Response:
        """Alive: the process answers."""
        return Response(b'{"status":"alive"}', content_type=JSON)

    def readyz() -> Response:
        """Ready: a release is served."""
        with watch.hold() as release:
            if release is None:
                raise no_release(retry_after_s)
            body = {"status": "ready", "release": release.release_id, "as_of": release.as_of}
        return Response(orjson.dumps(body), content_type=JSON)

    def metrics_text() -> Response:
        return Response(metrics.exposition(), content_type=metrics.content_type)

    app.add_url_rule("/v1/users/<user_id>/recommendations", view_func=recommendations, methods=["GET"])
    app.add_url_rule("/healthz", view_func=healthz, methods=["GET"])
    app.add_url_rule("/readyz", view_func=readyz, methods=["GET"])
    app.add_url_rule("/metrics", "metrics", view_func=metrics_text, methods=["GET"])
