"""Leaf processes that are asked for some rows at a time: of who scores many and is in no hurry no call runs for as long
as one that hangs, and nobody waits behind one for longer than it takes."""

from collections.abc import Callable, Mapping

import numpy as np

from infra.model_routes import ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import Leaf, Timed
from lookup_api.ranking.scorers import Array, Float32, rows_of

MOST_ROWS = 1024


class InParts:
    """Safe to use from any thread."""

    def __init__(self, leaf: Leaf, spec: Callable[[ModelRef, Deadline], ModelSpec]) -> None:
        """spec: of a version; raises PymkError. Lists are scored whole."""
        self._leaf = leaf
        self._spec = spec

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """As every leaf."""
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """As every leaf; ms: of all calls."""
        spec, rows = self._spec(model, deadline), rows_of(columns)
        most = min(MOST_ROWS, spec.resources.max_rows)
        if spec.unit != "row" or rows <= most:
            return self._leaf.timed(model, columns, deadline)
        found = [
            self._leaf.timed(model, {name: column[start : start + most] for name, column in columns.items()}, deadline)
            for start in range(0, rows, most)
        ]
        return Timed(np.concatenate([one.scores for one in found]), sum(one.ms for one in found))

    def close(self) -> None:
        """The leaf itself is closed by whoever opened it."""
