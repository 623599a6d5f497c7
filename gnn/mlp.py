"""A small network above a linear prior: what it adds to a pair's score. Nothing of how it is learnt."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

BOUND = 4.0
"""Standardised inputs are cut off here, in standard deviations: what was never seen must not run away."""
LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Scaling:
    """How features come to one scale; all float32 [F].

    squashed: 1 for columns that span decades, which become x / (|x| + middle), the distribution function of a
    log-logistic variable with that median; 0 for the others, whose middle is 1. mean, scale: then (x - mean) / scale.
    """

    squashed: Float32
    middle: Float32
    mean: Float32
    scale: Float32

    @classmethod
    def of(cls, matrix: Float32, wide: Bools) -> "Scaling":
        """Scaling of the rows float32 [n, F], n > 0. wide bool [F]: the columns to squash."""
        middle = np.where(wide, np.maximum(np.median(np.abs(matrix), axis=0), 1.0), 1.0)
        squashed, middle = wide.astype(np.float32), middle.astype(np.float32)
        even = matrix / (np.abs(matrix) * squashed + middle)
        mean, scale = even.mean(axis=0, dtype=np.float64), even.std(axis=0, dtype=np.float64)
        scale = np.where(scale < LEAST_SCALE, 1.0, scale)
        return cls(squashed, middle, mean.astype(np.float32), scale.astype(np.float32))

    def arrays(self) -> dict[str, Float32]:
        return {field.name: getattr(self, field.name) for field in fields(Scaling)}

    def apply(self, matrix: Float32) -> Float32:
        even = matrix / (np.abs(matrix) * self.squashed + self.middle)
        return np.clip((even - self.mean) / self.scale, -BOUND, BOUND)


class ListwiseMlp(nn.Module):
    """Two hidden layers over scaled features. The last layer starts at zero, so that learning starts at the prior.

    It has no bias: within a list a constant changes nothing.
    """

    squashed: Tensor
    middle: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, scaling: Scaling, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        for name, values in scaling.arrays().items():
            self.register_buffer(name, torch.from_numpy(values.copy()))
        self.first = nn.Linear(len(scaling.mean), hidden)
        self.second = nn.Linear(hidden, hidden // 2)
        self.last = nn.Linear(hidden // 2, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.last.weight)

    @property
    def scaling(self) -> Scaling:
        return Scaling(*(getattr(self, field.name).numpy() for field in fields(Scaling)))

    def forward(self, matrix: Tensor) -> Tensor:
        """What is added to the prior's scores [...], from features [..., F]."""
        even = matrix / (matrix.abs() * self.squashed + self.middle)
        return self.above(((even - self.mean) / self.scale).clamp(-BOUND, BOUND))

    def above(self, scaled: Tensor) -> Tensor:
        """The same from features that are scaled already."""
        first = self._thinned(torch.relu(self.first(scaled)))  # [..., H]
        second = self._thinned(torch.relu(self.second(first)))  # [..., H / 2]
        found: Tensor = self.last(second).squeeze(-1)
        return found

    def _thinned(self, layer: Tensor) -> Tensor:
        """Dropout of the same units for a whole list, [B, L, H]: its pairs are compared with each other."""
        if not self.training:
            return layer
        kept = self.dropout(layer.new_ones(len(layer), 1, layer.shape[-1]))
        return layer * kept
