"""A routed model that leaf processes host, as one that ranks: whatever it does to its leaf, this worker goes on."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.model_routes import ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import Leaf
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.scorers import Float32

OPENED_S = 10.0
"""For a leaf to open the model, before it ranks for anybody."""


@dataclass(frozen=True)
class LeafRanks:
    """places int64 [C]: of the model's inputs among FEATURES. budget_s: that the leaf may take for a request."""

    ref: ModelRef
    spec: ModelSpec
    leaf: Leaf
    places: npt.NDArray[np.int64]
    budget_s: float

    @classmethod
    def open(cls, ref: ModelRef, spec: ModelSpec, leaf: Leaf, budget_s: float, leaves: int) -> "LeafRanks":
        """Once the model's leaves, so many, have it open. Raises what a leaf does."""
        made = cls(ref, spec, leaf, np.array([FEATURES.index(name) for name in spec.columns]), budget_s)
        nothing = np.zeros((1, len(FEATURES)), np.float32)
        for _ in range(leaves):  # which are asked in turn
            made.scored(nothing, Deadline.after(OPENED_S))
        return made

    def score(self, matrix: Float32) -> Float32:
        """As RanksPairs. Raises what a leaf does."""
        return self.scored(matrix, Deadline.after(self.budget_s))

    def scored(self, matrix: Float32, deadline: Deadline) -> Float32:
        columns = dict(zip(FEATURES, matrix.T, strict=True)) | {
            one.name: np.ascontiguousarray(matrix[:, at]).astype(one.dtype, copy=False)
            for one, at in zip(self.spec.inputs, self.places.tolist(), strict=True)
        }
        return self.leaf.score(self.ref, columns, deadline)
