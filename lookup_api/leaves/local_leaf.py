"""A leaf in this process: what a worker scores with where no others are named, and what every leaf process is."""

import hashlib
import time
from collections.abc import Callable, Mapping

import numpy as np

from infra.errors import UsageError
from infra.model_routes import ModelRef
from infra.serving_settings import LeafSettings
from lookup_api.bounded_cache import BoundedCache
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.batches import Batches
from lookup_api.leaves.columns import Inputs, count_of
from lookup_api.leaves.devices import ON_CPU
from lookup_api.leaves.leaf_metrics import FAILED, LATE, OPEN, REFUSED, HostMetrics
from lookup_api.leaves.protocol import LeafBusy, LeafFailed, ModelHangs, Timed, TurnLate, refuse_late
from lookup_api.leaves.residents import Resident, Residents
from lookup_api.ranking.scorers import Array, Float32

MIB = 1 << 20


class LocalLeaf:
    """Models of a store's registry, opened here when they are asked for. Safe to use from any thread."""

    def __init__(
        self,
        store_uri: str,
        settings: LeafSettings,
        counts: HostMetrics,
        breaker: Callable[[str], Breaker],
        devices: Mapping[str, str] = ON_CPU,
    ) -> None:
        """breaker: makes one, by name, for every model. devices: that models score on, by their kind."""
        self.counts = counts
        self.devices = devices
        self.models = Residents(store_uri, settings.memory_mib * MIB, settings.load_threads, counts, breaker, devices)
        self._batches = Batches(settings.math_threads, settings.most_waiting, settings.timeout_ms / 1e3, counts)
        self._cache = BoundedCache[Float32](settings.cache_mib * MIB, settings.cache_life_s)

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """Scores float32 [n], as the model gives them, be they no numbers. Raises as every leaf does."""
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Raises as every leaf does."""
        resident = self.resident(model, deadline)
        try:
            inputs = resident.columns.inputs_of(resident.columns.trimmed(_named(resident, columns)))
        except UsageError:
            self.counts.asked(model, REFUSED)
            raise
        return self.score_inputs(resident, inputs, deadline)

    def resident(self, model: ModelRef, deadline: Deadline) -> Resident:
        """The open model. Raises NotFound, ModelLoading, LeafFailed."""
        try:
            return self.models.get(model, deadline)
        except TooLate:
            self.counts.asked(model, LATE)
            raise
        except LeafFailed:
            self.counts.asked(model, FAILED)
            raise

    def hanging(self) -> set[ModelRef]:
        """Models of which a call has been running for longer than any may."""
        return self._batches.hanging()

    def score_inputs(self, resident: Resident, inputs: Inputs, deadline: Deadline, spare: bool = False) -> Timed:
        """Scores of what `ColumnList.inputs_of` made. spare: where nobody else is scored, LeafBusy otherwise. Raises
        TooLate, LeafFailed and UsageError."""
        spec, rows = resident.spec, count_of(inputs)
        if spec.unit == "list" and rows > spec.resources.max_rows:
            self.counts.asked(resident.ref, REFUSED)
            raise UsageError(f"{resident.ref}: a list of {rows} rows, it takes {spec.resources.max_rows}")
        if not self._cache:
            return self._scored(resident, inputs, deadline, spare)
        key = (resident.ref, rows, _digest(inputs))
        found = self._cache.get(key)
        self.counts.cache.labels("miss" if found is None else "hit").inc()
        if found is None:
            made = self._scored(resident, inputs, deadline, spare)
            self._cache.put(key, made.scores.copy(), made.scores.nbytes)
            return made
        return Timed(found.copy(), 0.0)

    def close(self) -> None:
        self.models.close()

    def _scored(self, resident: Resident, inputs: Inputs, deadline: Deadline, spare: bool) -> Timed:
        ref = resident.ref
        if ref in self._batches.hanging():
            self.counts.asked(ref, OPEN)
            raise ModelHangs(f"{ref}: hangs, and is left alone until it does not")
        if not resident.breaker.allows():
            self.counts.asked(ref, OPEN)
            raise LeafFailed(f"{ref}: failed too often and is left alone for a while")
        start = time.perf_counter()
        try:
            timed = self._batches.score(resident, inputs, deadline, spare)
            refuse_late(str(ref), timed.ms, deadline)
        except TooLate as error:
            self.counts.asked(ref, LATE)
            if not isinstance(error, TurnLate):
                resident.breaker.failed()
            raise
        except Exception as error:  # whatever a model dies of
            self.counts.asked(ref, FAILED)
            if isinstance(error, (LeafBusy, ModelHangs)):
                raise
            resident.breaker.failed()
            raise LeafFailed(f"{ref}: {error}") from error
        resident.breaker.succeeded()
        self.counts.answered(ref, len(timed.scores), time.perf_counter() - start)
        return timed


def _named(resident: Resident, columns: Mapping[str, Array]) -> Mapping[str, Array]:
    """The columns that the model names; where there is none, any other tells how many rows there are."""
    named = {one.name: columns[one.name] for one in resident.spec.inputs if one.name in columns}
    return named if named or not columns else {"": next(iter(columns.values()))}


def _digest(inputs: Inputs) -> bytes:
    """16 bytes that are the same for identical inputs alone."""
    made = hashlib.blake2b(digest_size=16)
    for part in inputs.values() if isinstance(inputs, dict) else [inputs]:
        made.update(np.ascontiguousarray(part).data.cast("B"))
    return made.digest()
