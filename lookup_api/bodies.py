"""Requests that wait for their callers or for a disk: another thread answers meanwhile, and no work is counted."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import request

from infra.events import Event, Refusal
from infra.key_ring import KeyRing
from lookup_api.door import presented_key
from lookup_api.events import Recorder
from lookup_api.headers import JSON
from lookup_api.load import Load
from lookup_api.problems import Problem, body_too_large
from lookup_api.spare_threads import SpareThreads

TURN_S = 0.1
"""For which a body waits for others of its key before it is refused: those that are there already are read in less."""


class Bodies:
    """Bodies of requests, JSON alone. One key may wait for half as many as there are threads to wait: bodies have no
    time limit, and others have theirs to send. Thread-safe."""

    def __init__(self, spare: SpareThreads, load: Load, keys: KeyRing, retry_after_s: int, most_bytes: int) -> None:
        self.load = load
        self._spare = spare
        self._keys = keys
        self._retry_after_s = retry_after_s
        self._most_bytes = most_bytes
        self._read = threading.Condition()
        self._of_keys: Counter[str] = Counter()

    @contextmanager
    def posted(self, environ: Mapping[str, Any]) -> Iterator[bytes]:
        """The body, for a block in which this thread may wait. Raises Problem for another type than JSON, for too many
        bytes, and where too many threads wait already."""
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != JSON:
            # A page of another origin can send other types without asking first.
            raise Problem(415, "not-json", f"Send it as {JSON}.")
        with self._others_answer():
            with self._counted(environ), self.load.resting():
                body = request.get_data()
            if len(body) > self._most_bytes:  # of unknown length: it is read a byte further than it may be long
                raise body_too_large(self._most_bytes)
            yield body

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A block that waits for a disk or another host. Raises Problem where too many threads wait already."""
        with self._others_answer(), self.load.resting():
            yield

    @contextmanager
    def _others_answer(self) -> Iterator[None]:
        with self._spare.instead() as may_wait:
            if not may_wait:
                raise self._late("Too many requests wait for their bodies.")
            yield

    @contextmanager
    def _counted(self, environ: Mapping[str, Any]) -> Iterator[None]:
        presented = presented_key(environ)
        holder = self._keys.find(presented) if presented is not None else None
        if holder is None or not self._spare.count:
            yield
            return
        key, most = holder.key_id, max(1, self._spare.count // 2)
        with self._read:
            if not self._read.wait_for(lambda: self._of_keys[key] < most, TURN_S):
                raise self._late("Too many requests of this key wait for their bodies.")
            self._of_keys[key] += 1
        try:
            yield
        finally:
            with self._read:
                self._of_keys[key] -= 1
                self._of_keys += Counter()  # without those who wait for none
                self._read.notify_all()

    def _late(self, detail: str) -> Problem:
        return Problem(503, "bodies-late", detail, {"Retry-After": str(self._retry_after_s)})


@dataclass(frozen=True)
class RecordedAside:
    """Records events; waiting for the disk, or for Redis, is no work of this worker."""

    facts: Recorder
    load: Load

    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        with self.load.resting():
            return self.facts.record(events)
