"""Prometheus metrics of one worker, or of all of them where they share PROMETHEUS_MULTIPROC_DIR."""

import os
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
)

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SOURCES = ("precomputed", "live", "heuristic", "stale", "popular", "none")
NO_LIST = ""
"""Source of answers that are no lists: `none` is that of a list that is empty."""


T = TypeVar("T")
TRIES, AGAIN_S = 10, 0.02
"""Requests wait meanwhile: a file that stays damaged may not hold them up for long."""


def _of_whole_files(read: Callable[[], T]) -> T:
    """What it reads, and again where another worker has just made a file, which is empty for a moment."""
    for _ in range(TRIES - 1):
        with suppress(struct.error):
            return read()
        time.sleep(AGAIN_S)
    return read()


class Metrics:
    """The metrics of one app."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "pymk_requests", "Requests by source of the answer and status.", ["source", "status"], registry=own
        )
        self.seconds = Histogram("pymk_request_seconds", "Time to answer.", ["source"], buckets=SECONDS, registry=own)
        self.degraded = Counter("pymk_degraded", "Answers for which a higher rung failed.", registry=own)
        self.rung_failures = Counter("pymk_rung_failures", "Failures of a rung.", ["rung"], registry=own)
        self.excluded = Counter("pymk_excluded", "People left out of answers, by rule.", ["rule"], registry=own)
        self.demoted = Counter("pymk_demoted", "People put behind others by a cap.", registry=own)
        self.swaps = Counter("pymk_release_swaps", "Releases taken into service.", registry=own)
        self.refused = Counter(
            "pymk_release_refused", "Releases that could not be opened and were not served.", registry=own
        )
        self.poll_failures = Counter("pymk_release_poll_failures", "Looks at CURRENT that failed.", registry=own)
        self.shed = Counter("pymk_shed", "Requests turned away because others were waiting.", registry=own)
        self.turned_away = Counter(
            "pymk_turned_away", "Requests that did not come through the door, by why.", ["why"], registry=own
        )
        self.facts_failures = Counter("pymk_facts_failures", "Reads of live facts that failed.", registry=own)
        self.erasures_failures = Counter(
            "pymk_erasures_failures", "Looks at the record of erasures that failed.", registry=own
        )
        self.events_accepted = Counter("pymk_events_accepted", "Events that are stored.", registry=own)
        self.events_rejected = Counter("pymk_events_rejected", "Events that were not taken.", ["code"], registry=own)
        self.release = Gauge(
            "pymk_release_info", "1 for the release that is served.", ["release"],
            multiprocess_mode="livemax", registry=own,
        )  # fmt: skip
        self.release_age = Gauge(
            "pymk_release_age_seconds", "Now minus the as-of of the release that is served.",
            multiprocess_mode="livemostrecent", registry=own,  # of the worker that is asked: the others' is of old
        )  # fmt: skip
        self.nightly_age = Gauge(
            "pymk_nightly_age_seconds", "Now minus the as-of of the night that the served release is of.",
            multiprocess_mode="livemostrecent", registry=own,
        )  # fmt: skip
        self.tables_locked = Gauge(
            "pymk_tables_locked_bytes", "Of the served release's files, those locked in memory (api.lock_tables).",
            multiprocess_mode="livemin", registry=own,
        )  # fmt: skip
        self._answered = {
            source: (self.requests.labels(source, "200"), self.seconds.labels(source)) for source in SOURCES
        }
        self._as_of_s: tuple[float, float] | None = None

    def answered(self, source: str, seconds: float) -> None:
        """Counts one 200."""
        requests, histogram = self._answered[source]
        requests.inc()
        histogram.observe(seconds)

    def took_events(self, told: dict[str, Any]) -> None:
        """Counts a 202 by what it tells."""
        self.requests.labels(NO_LIST, "202").inc()
        self.events_accepted.inc(told["accepted"])
        for refused in told["rejected"]:
            self.events_rejected.labels(refused["code"]).inc()

    def failed(self, status: int) -> None:
        """Counts one request that was answered with a problem."""
        self.requests.labels(NO_LIST, str(status)).inc()

    def serving(self, release_id: str, as_of_s: float, before: str | None, night_s: float | None = None) -> None:
        """Notes a swap from the release `before`. as_of_s: seconds since 1970; night_s: of the night of a delta."""
        self.swaps.inc()
        if before is not None and before != release_id:
            self.release.labels(before).set(0)
        self.release.labels(release_id).set(1)
        self._as_of_s = (as_of_s, as_of_s if night_s is None else night_s)

    def exposition(self) -> bytes:
        """All metrics as text. With several workers it is the sum over all of them."""
        return _of_whole_files(lambda: generate_latest(self._whole()))

    def collected(self) -> Iterable[Metric]:
        """The same as values."""
        return _of_whole_files(lambda: list(self._whole().collect()))

    def _whole(self) -> CollectorRegistry:
        if self._as_of_s is not None:
            now = time.time()
            self.release_age.set(now - self._as_of_s[0])
            self.nightly_age.set(now - self._as_of_s[1])
        if FOLDER_VARIABLE not in os.environ:
            return self.registry
        forget_dead_workers(Path(os.environ[FOLDER_VARIABLE]))
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return together


def forget_dead_workers(folder: Path) -> None:
    """Removes the gauges of workers that ended, as what they say holds no more. What they counted stays."""
    alive = _workers()
    if os.getpid() not in alive:  # who runs could not be told: this worker does
        return
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and int(pid) not in alive:
            path.unlink(missing_ok=True)


def _workers() -> set[int]:
    """Process ids of the server's workers that run; empty where that cannot be told."""
    try:
        children = psutil.Process(os.getppid()).children()
        return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}
    except psutil.Error:
        return set()
