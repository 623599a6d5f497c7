"""Maximal Marginal Relevance."""

import torch
from torch import Tensor

from gnn.blend.greedy import GreedyBlend, Objective, rows_of


class MaximalMarginalRelevance(GreedyBlend):
    """MMR (Carbonell and Goldstein, SIGIR 1998): the next pick is the j that maximises

        share * relevance_j - (1 - share) * max over picks i of v_i . v_j,

    the second term being 0 for the first pick. share in [0, 1] is the paper's lambda; 1 is relevance alone.

    traits of `forward`: embeddings float32 [B, N, D]. O(N D) a pick.
    """

    def __init__(self, share: float = 0.7) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError(f"share: {share} is not in [0, 1]")
        self.share = share

    def objective(self, scores: Tensor, traits: Tensor, picks: int) -> Objective:
        return _Marginal(self.share * scores, traits, 1 - self.share)


class _Marginal:
    preference: Tensor | None = None

    def __init__(self, scores: Tensor, embeddings: Tensor, weight: float) -> None:
        self._scores, self._embeddings, self._weight = scores, embeddings, weight
        self._nearest: Tensor | None = None  # [B, N]

    def gains(self) -> Tensor:
        return self._scores if self._nearest is None else self._scores - self._weight * self._nearest

    def rounding(self, best: Tensor) -> float:
        return 1e-14 * self._weight

    def add(self, picked: Tensor) -> None:
        alike = torch.bmm(self._embeddings, rows_of(self._embeddings, picked).transpose(1, 2))[:, :, 0]  # [B, N]
        self._nearest = alike if self._nearest is None else torch.maximum(self._nearest, alike)
