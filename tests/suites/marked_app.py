"""A WSGI app behind a queue as the API has it, for tests on a real server: answers that take long, refusals, marks."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from lookup_api.shedding import Queue

SERVICE_S = 0.005


def create_app() -> Callable[..., Iterable[bytes]]:
    queue, marks = Queue(0.05), [0]

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in ("/healthz", "/readyz", "/marks"):
            marks[0] += queue.passed(environ)
            start_response("200 OK", [])
            return [str(marks[0]).encode()]
        came_in = queue.enter(environ)
        if came_in:
            time.sleep(SERVICE_S)
        start_response("200 OK" if came_in else "503 Service Unavailable", [])
        return [b"{}"]

    return app
