"""When a canary is taken off by itself: where it fails, is slow, or scores otherwise than when it was pushed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from infra.settings import ModelSettings
from lookup_api.leaves.protocol import LeafAway, LeafBusy, LeafLate, LeafLost, ModelLoading, TurnLate
from lookup_api.ranking.scorers import Float32
from lookup_api.ranking.stability import stability_index

OTHERS = (LeafAway, LeafBusy, LeafLate, ModelLoading, TurnLate)
"""What a model can do nothing for: leaves that are away or hang, load it, or have others to score first."""
TENTHS = 10
MOST_TIMES = 4096
"""Times of a window that are kept."""


@dataclass(frozen=True)
class Bounds:
    """What a canary must keep to (settings models.canary_*). window_s: after which counts begin anew, but not before
    `requests` of them.

    failed: share of requests that may fail, where `failures` did. p95_ms: of the model's own calls, without any wait.
    drift: stability index of its scores beside those of its golden batch; a shift of one standard deviation is about 1.
    """

    window_s: float = 10.0
    requests: int = 20
    failures: int = 3
    failed: float = 0.05
    p95_ms: float = 50.0
    drift: float = 2.0

    @classmethod
    def of(cls, settings: ModelSettings) -> "Bounds":
        return cls(
            settings.canary_window_s,
            settings.canary_requests,
            settings.canary_failures,
            settings.canary_failed_share,
            settings.canary_p95_ms,
            settings.canary_drift,
        )


USUAL = Bounds()


class Guard:
    """Counts what a model does, from any thread, in one window after the other."""

    def __init__(
        self,
        golden: Float32,
        bounds: Bounds = USUAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """golden float32 [n]: scores that are as usual."""
        self._bounds = bounds
        self._clock = clock
        self._edges = np.unique(np.quantile(golden, np.linspace(0, 1, TENTHS + 1)[1:-1]))
        self._usual = self._counted(golden)
        self._lock = threading.Lock()
        self._at_once: str | None = None
        self._begin()

    def scored(self, ms: float, scores: Float32, requests: int = 1) -> None:
        """Notes a request that was scored, or several. ms: that the model's own call took, 0 where nobody tells."""
        counted = self._counted(scores)
        with self._lock:
            self._requests += requests
            self._found += counted
            if ms > 0 and len(self._times) < MOST_TIMES:
                self._times.append(ms)

    def failed_by(self, error: BaseException | None) -> None:
        """Notes a request that was not, or too late, where that may be a fault of the model's own. A leaf that goes
        with a request speaks against it at once."""
        if isinstance(error, LeafLost):
            self._at_once = "it ended the leaves that scored by it"
        elif not isinstance(error, OTHERS):
            with self._lock:
                self._requests += 1
                self._failures += 1

    def verdict(self) -> str | None:
        """What is out of bounds in this window; None where nothing is, or too little is known."""
        bounds = self._bounds
        if self._at_once:
            return self._at_once
        with self._lock:
            requests, failures, times, found = self._requests, self._failures, list(self._times), self._found.copy()
            if self._clock() - self._since > bounds.window_s and requests >= bounds.requests:
                self._begin()
        if failures >= bounds.failures and failures > bounds.failed * requests:
            return f"{failures} of {requests} requests failed"
        if requests < bounds.requests:
            return None
        slow = float(np.percentile(times, 95)) if len(times) >= bounds.requests / 4 else 0.0
        if slow > bounds.p95_ms:
            return f"p95 of scoring is {slow:.1f} ms, {bounds.p95_ms:g} are allowed"
        drift = stability_index(found, self._usual) if len(self._edges) > 1 else 0.0
        if drift > bounds.drift:
            return f"stability index of its scores is {drift:.1f}, {bounds.drift:g} is allowed"
        return None

    def _begin(self) -> None:
        self._since = self._clock()
        self._requests = self._failures = 0
        self._times: list[float] = []
        self._found = np.zeros(len(self._edges) + 1)

    def _counted(self, scores: Float32) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """How many scores are between the edges."""
        places = np.searchsorted(self._edges, scores)
        return np.bincount(places, minlength=len(self._edges) + 1).astype(np.float64)
