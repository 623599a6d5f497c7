"""Bodies of requests: JSON alone, and read while another thread answers in this one's place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import request

from lookup_api.headers import JSON
from lookup_api.problems import Problem
from lookup_api.spare_threads import SpareThreads


@contextmanager
def posted(environ: Mapping[str, Any], spare: SpareThreads, retry_after_s: int) -> Iterator[bytes]:
    """The body, for a block in which this thread may wait. Raises Problem for another type than JSON, and where too
    many threads wait already."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != JSON:
        # A page of another origin can send other types without asking first.
        raise Problem(415, "not-json", f"Send it as {JSON}.")
    with spare.instead() as may_wait:
        if not may_wait:
            later = {"Retry-After": str(retry_after_s)}
            raise Problem(503, "bodies-late", "Too many requests wait for their bodies.", later)
        yield request.get_data()
