"""A routed model as one that ranks: open in this process, or on leaf processes, which it may end but no worker."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.model_routes import ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.protocol import Leaf, ModelHangs, Timed
from lookup_api.ranking.routed import OfFeatures
from lookup_api.ranking.scorers import Array, Scorer

OPENED_S = 10.0
"""For a leaf to open the model, before it ranks for anybody."""
HANGS_S = 1.0
"""For which a call in this process may run before no other is made."""
WARM_UP_ROWS = 16


@dataclass(frozen=True)
class HereRanks:
    """In this process. running: since when each call does, of the monotonic clock."""

    scorer: Scorer
    columns: ColumnList
    running: list[float] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec) -> "HereRanks":
        """Raises what OfFeatures.open raises."""
        return cls(OfFeatures.open(folder, spec).scorer, ColumnList.of(spec))

    @property
    def spec(self) -> ModelSpec:
        return self.scorer.spec

    def timed(self, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Raises ModelHangs, and whatever the model dies of. Nobody can end its call, so what it scored counts though
        the time was over: that its calls take long is the guard's to see."""
        inputs, now_s = self.columns.inputs_of(self.columns.trimmed(columns)), time.monotonic()
        if now_s - min(self.running, default=now_s) > HANGS_S:
            raise ModelHangs(f"{self.spec.name}: hangs, and is left alone until it does not")
        self.running.append(now_s)
        try:
            start = time.perf_counter()
            scores = self.scorer.score(inputs)
            ms = (time.perf_counter() - start) * 1e3
        finally:
            self.running.remove(now_s)
        return Timed(scores, ms)


@dataclass(frozen=True)
class LeafRanks:
    """On leaf processes."""

    ref: ModelRef
    spec: ModelSpec
    leaf: Leaf

    @classmethod
    def open(cls, ref: ModelRef, spec: ModelSpec, leaf: Leaf, leaves: int) -> "LeafRanks":
        """Once the model's leaves, so many, have it open. Raises what a leaf does."""
        made = cls(ref, spec, leaf)
        for _ in range(leaves):  # which are asked in turn
            made.timed(defaults_of(spec), Deadline.after(OPENED_S))
        return made

    def timed(self, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Raises what a leaf does."""
        return self.leaf.timed(self.ref, columns, deadline)


def defaults_of(spec: ModelSpec) -> dict[str, Array]:
    """Some rows of what a model has for values that nobody knows."""
    return {one.name: one.defaults(WARM_UP_ROWS) for one in spec.inputs}
