"""The releases of the store with what their reports measured, for GET /v1/releases."""

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson

from infra.artifacts import find_manifest
from infra.errors import PymkError, StoreError
from infra.release_files import Release
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store

log = logging.getLogger(__name__)

MOST = 30
KEPT_S = 5.0
PATIENCE_S = 2.0
REPORT, SERVING = "report", "serving_tables"
Metrics = dict[str, float]


class ReleaseList:
    """Read from the store at most every few seconds; what was read of a report is kept, as it never changes."""

    def __init__(self, store_uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store_uri = store_uri
        self._clock = clock
        self._lock = threading.Lock()
        self._store: ObjectStore | None = None
        self._reader: threading.Thread | None = None
        self._failure: PymkError | None = None
        self._read_at = self._began_at = -KEPT_S
        self._body: dict[str, Any] = {}
        self._reports: dict[str, tuple[Metrics, Metrics]] = {}

    def json(self, served: str | None) -> bytes:
        """{"current", "served", "releases": newest first}; served: the id that this process serves.

        Raises PymkError where the store cannot be read, or not soon: a reading is waited for once, and where it hangs
        whoever asks later is told so at once.
        """
        if self._clock() - self._read_at >= KEPT_S:
            reader = self._reading()
            reader.join(max(0.0, self._began_at + PATIENCE_S - self._clock()))
        if self._failure is not None:
            raise self._failure
        if self._clock() - self._read_at >= KEPT_S + PATIENCE_S:
            raise StoreError(f"{self._store_uri}: is not read in time", "Check that the store is not hung.")
        return orjson.dumps(self._body | {"served": served})

    def _reading(self) -> threading.Thread:
        """The thread that reads, of which there is one at a time."""
        with self._lock:
            if self._reader is None or not self._reader.is_alive():
                self._began_at = self._clock()
                self._reader = threading.Thread(target=self._renew, name="release-list", daemon=True)
                self._reader.start()
            return self._reader

    def _renew(self) -> None:
        try:
            self._body = self._read()
            self._failure, self._read_at = None, self._clock()
        except PymkError as error:
            self._failure = error

    def _read(self) -> dict[str, Any]:
        if self._store is None:
            self._store = open_store(self._store_uri)
        releases = ReleaseStore(self._store)
        newest = releases.list()[: -MOST - 1 : -1]
        current = releases.pointer()
        found = [self._described(self._store, release) for release in newest]
        return {"current": current.release_id if current else None, "releases": found}

    def _described(self, store: ObjectStore, release: Release) -> dict[str, Any]:
        tables = release.artifacts.get(SERVING)
        metrics, peers = self._report(store, release)
        return {
            "release_id": release.release_id,
            "as_of": release.as_of,
            "users": tables.rows if tables else 0,
            "metrics": metrics,
            "peers_recall": peers,
        }

    def _report(self, store: ObjectStore, release: Release) -> tuple[Metrics, Metrics]:
        entry = release.artifacts.get(REPORT)
        if entry is None:
            return {}, {}
        if entry.artifact_id not in self._reports:
            try:
                manifest = find_manifest(store, REPORT, entry.artifact_id)
                measured = manifest.metrics if manifest else {}
                self._reports[entry.artifact_id] = (_numbers(measured), _peers(measured))
            except (PymkError, OSError) as error:
                log.warning("%s: its report cannot be read: %s", release.release_id, error)
                return {}, {}
        return self._reports[entry.artifact_id]


def _numbers(measured: dict[str, Any]) -> Metrics:
    """What is measured of the whole: the numbers that stand alone."""
    return {n: value for n, value in measured.items() if type(value) in (int, float) and math.isfinite(value)}


def _peers(measured: dict[str, Any]) -> Metrics:
    """recall@20 of the heuristics that the report measured beside it."""
    peers = measured.get("heuristics") or {}
    return {name: values["recall@20"] for name, values in peers.items() if "recall@20" in values}
