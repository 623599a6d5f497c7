"""Models of the registry that are open in this process: loaded on first use, within so many bytes.

Loads happen on threads of their own that wait for requests, so that who asks for an open model never waits for another
model to load; of several who ask for a model that is not open, one loads it. What was not asked for longest makes room.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from infra.artifacts import local_copy
from infra.errors import NotFound, PymkError, StoreError
from infra.model_routes import ModelRef
from infra.model_spec import ModelSpec
from infra.models import ModelVersion, Registry
from infra.store import ObjectStore, open_store
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.protocol import LeafFailed, ModelLoading
from lookup_api.ranking.scorers import CPU, Scorer, open_scorer
from lookup_api.release_watch import FOLLOWER_NICENESS

log = logging.getLogger(__name__)

WARM_UP_ROWS = 16
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Between tries to open a model that could not be opened."""
FAILURES = 10_000
"""Models that could not be opened and are remembered."""


@dataclass(slots=True)
class Resident:
    """An open model. used_s: when it was asked for last, of the monotonic clock."""

    ref: ModelRef
    spec: ModelSpec
    columns: ColumnList
    scorer: Scorer
    breaker: Breaker
    used_s: float

    @property
    def size_bytes(self) -> int:
        return self.spec.resources.memory_bytes


@dataclass(frozen=True, slots=True)
class _Failure:
    error: PymkError
    times: int
    again_s: float


class Residents:
    """Safe to use from any thread."""

    def __init__(
        self,
        store_uri: str,
        most_bytes: int,
        load_threads: int,
        counts: HostMetrics,
        breaker: Callable[[str], Breaker],
        devices: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """breaker: makes one, by name. devices: by kind of model; the CPU where it has none."""
        self._store_uri = store_uri
        self._most_bytes = most_bytes
        self._counts = counts
        self._breaker = breaker
        self._devices = devices
        self._clock = clock
        self._store: ObjectStore | None = None
        self._open: dict[ModelRef, Resident] = {}
        self._loading: dict[ModelRef, Future[Resident]] = {}
        self._failed: dict[ModelRef, _Failure] = {}
        self._reserved = 0
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._loaders = ThreadPoolExecutor(load_threads, "leaf-load", _wait_for_requests)

    def get(self, ref: ModelRef, deadline: Deadline) -> Resident:
        """Raises NotFound, ModelLoading where the deadline passes first, and LeafFailed where it cannot be opened."""
        resident = self._open.get(ref) or self._awaited(ref, deadline)
        resident.used_s = self._clock()
        return resident

    def open_models(self) -> list[Resident]:
        return list(self._open.values())

    @property
    def size_bytes(self) -> int:
        """Memory that open models say they take."""
        return sum(one.size_bytes for one in self.open_models())

    def close(self) -> None:
        """Without waiting for a store that hangs."""
        self._loaders.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._open.clear()

    def _awaited(self, ref: ModelRef, deadline: Deadline) -> Resident:
        with self._lock:
            resident = self._open.get(ref)
            if resident is not None:
                return resident
            loading = self._loading.get(ref)
            if loading is None:
                self._refuse_failed(ref)
                loading = self._loading[ref] = self._loaders.submit(self._loaded, ref)
        try:
            return loading.result(max(0.0, deadline.left_s))
        except TimeoutError:
            raise ModelLoading(f"{ref}: is being loaded, for longer than there was time") from None
        except PymkError as error:
            raise type(error)(error.what, error.fix) from None  # one of its own for each who waits

    def _refuse_failed(self, ref: ModelRef) -> None:
        """Raises again what kept the model from being opened, until it is time for another try."""
        failure = self._failed.get(ref)
        if failure and self._clock() < failure.again_s:
            raise type(failure.error)(failure.error.what, failure.error.fix)

    def _loaded(self, ref: ModelRef) -> Resident:
        """Raises NotFound and LeafFailed alone."""
        start = self._clock()
        try:
            resident = self._load(ref)
        except Exception as error:  # whatever a model dies of, others score
            raise self._noted(ref, error) from error
        with self._lock:
            self._give_back(resident.size_bytes)
            self._open[ref] = resident
            self._failed.pop(ref, None)
            self._loading.pop(ref, None)
        self._show()
        self._counts.loads.labels("loaded").inc()
        self._counts.load_seconds.observe(self._clock() - start)
        return resident

    def _load(self, ref: ModelRef) -> Resident:
        registry, found = self._found(ref)
        spec = found.spec
        size = spec.resources.memory_bytes
        self._reserve(ref, size)
        try:
            scorer = open_scorer(registry.files_of(found), spec, self._devices.get(spec.kind, CPU))
            scorer.score({one.name: one.defaults(WARM_UP_ROWS) for one in spec.inputs})
        except BaseException:
            with self._lock:
                self._give_back(size)
            raise
        return Resident(ref, spec, ColumnList.of(spec), scorer, self._breaker(f"model {ref}"), self._clock())

    def _found(self, ref: ModelRef) -> tuple[Registry, ModelVersion]:
        """In the store, or while it is away in the copy of it on this machine."""
        try:
            self._store = self._store or open_store(self._store_uri)
            registry = Registry(self._store)
            return registry, registry.get(ref.name, ref.version)
        except NotFound:
            raise
        except StoreError:
            copy = local_copy(self._store_uri)
            if copy is None:
                raise
            with suppress(NotFound):
                return Registry(copy), Registry(copy).get(ref.name, ref.version)
            raise

    def _reserve(self, ref: ModelRef, size: int) -> None:
        """Makes room, of what was not asked for longest first. Raises LeafFailed where there is none to be made."""
        with self._lock:
            while (short := self._short_of(size, evicted=True)) and self._reserved:
                self._room.wait()  # another model loads, and can make room once it is open
            if short:
                what = f"{ref}: takes {size:,} bytes, of {self._most_bytes:,} that this leaf has for models"
                raise LeafFailed(what, "Raise leaves.memory_mib, pin fewer models, or say what it takes in model.toml.")
            while self._short_of(size, evicted=False):
                oldest = min((o for o in self._open.values() if not o.spec.pinned), key=lambda one: one.used_s)
                del self._open[oldest.ref]
                self._counts.evicted.inc()
            self._reserved += size

    def _short_of(self, size: int, evicted: bool) -> bool:
        """Whether there is no room for so many bytes. evicted: even if all that may be closed were."""
        kept = (one for one in self._open.values() if one.spec.pinned or not evicted)
        return self._reserved + sum(one.size_bytes for one in kept) + size > self._most_bytes

    def _give_back(self, size: int) -> None:
        self._reserved -= size
        self._room.notify_all()

    def _noted(self, ref: ModelRef, error: Exception) -> PymkError:
        """What is raised of a load that failed, and again until the next try."""
        told = isinstance(error, NotFound | LeafFailed)
        known = error if isinstance(error, PymkError) and told else LeafFailed(f"{ref}: cannot be opened: {error}")
        with self._lock:
            times = self._failed[ref].times if ref in self._failed else 0
            wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(times, 10))
            self._failed.pop(ref, None)
            if len(self._failed) >= FAILURES:
                self._failed.pop(next(iter(self._failed)))
            self._failed[ref] = _Failure(known, times + 1, self._clock() + wait)
            self._loading.pop(ref, None)
        self._counts.loads.labels("missing" if isinstance(known, NotFound) else "failed").inc()
        self._show()
        log.warning("model %s is not open, next try in %.0f s: %s", ref, wait, known)
        return known

    def _show(self) -> None:
        self._counts.models.set(len(self._open))
        self._counts.bytes.set(self.size_bytes)


def _wait_for_requests() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)  # of this thread
