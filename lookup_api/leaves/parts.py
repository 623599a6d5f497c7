"""A leaf that is asked for a few rows at a time: who scores many and is in no hurry lets others go in between.

So none of their calls runs for as long as one that hangs, and nobody waits behind one for longer than a few rows take.
"""

from collections.abc import Mapping

import numpy as np

from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.protocol import Leaf, Timed
from lookup_api.ranking.scorers import FEWEST_ROWS, Array, Float32, rows_of

MOST_ROWS = 1024
CALL_MS = 5.0
"""That a call is to take, by what those before it took."""
OWN_SHARE = 0.5
"""Of the time that a request has, what the model's own calls take at least where it is late by its own fault."""


class InParts:
    """Safe to use from any thread."""

    def __init__(self, leaf: Leaf, whole: bool = False) -> None:
        """whole: of models of lists, whose rows are scored in one call."""
        self._leaf = leaf
        self._whole = whole

    def score(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Float32:
        """As every leaf."""
        return self.timed(model, columns, deadline).scores

    def timed(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """As every leaf; ms: of the longest call."""
        rows, start, allowed_s = rows_of(columns), 0, deadline.left_s
        most = max(rows, 1) if self._whole else FEWEST_ROWS
        found: list[Timed] = []
        while start < rows or not found:
            part = {name: column[start : start + most] for name, column in columns.items()}
            try:
                found.append(self._asked(model, part, deadline))
            except TooLate as error:
                own_s = sum(one.ms for one in found) / 1e3
                if own_s < OWN_SHARE * allowed_s:
                    raise
                raise TooLate(f"{model}: scored {start} of {rows} rows within {own_s:.1f} s of its own") from error
            start += most
            if ms := found[-1].ms:  # 0 of what was in memory
                most = max(FEWEST_ROWS, min(MOST_ROWS, 2 * most, int(most * CALL_MS / ms)))
        return Timed(np.concatenate([one.scores for one in found]), max(one.ms for one in found))

    def close(self) -> None:
        """The leaf itself is closed by whoever opened it."""

    def _asked(self, model: ModelRef, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        if isinstance(self._leaf, LocalLeaf):
            return self._leaf.timed(model, columns, deadline, patient=True)
        return self._leaf.timed(model, columns, deadline)
