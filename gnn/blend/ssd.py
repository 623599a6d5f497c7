"""Sliding Spectrum Decomposition: relevance plus the volume that the last few picks span."""

import torch
from torch import Tensor

from gnn.blend.greedy import GreedyBlend, Objective
from gnn.blend.span import Span
from gnn.blend.window import checked_window, reach_of


class SlidingSpectrum(GreedyBlend):
    """SSD (Huang et al., KDD 2021), greedy: the next pick is the j that maximises

        relevance_j + gamma * vol(v_w1, …, v_wm, v_j),

    vol being the volume that embeddings span, sqrt(det of their Gram matrix), and w1..wm the last window - 1 picks: the
    window counts the candidate. window None counts all picks. For the first pick, vol = |v_j|.

    The volume of every window is exact. The paper's circular queue, which adds the oldest projection back to what the
    younger ones left, is an approximation that departs from it once picks leave the window, and is not built.

    A zero vector or a duplicate in the window makes its volume 0, and relevance alone decides until it has left. So it
    does for every pick after the D-th without a window: keep window <= D.

    traits of `forward`: embeddings float32 [B, N, D]. O(N D) a pick without a window, O(N D window) with one.
    """

    def __init__(self, gamma: float = 0.5, window: int | None = 10) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma: {gamma} is negative")
        self.gamma, self.window = gamma, checked_window(window)

    def objective(self, scores: Tensor, traits: Tensor, picks: int) -> Objective:
        return _Volume(scores, traits, self.gamma, reach_of(self.window, picks), picks)


class _Volume:
    preference: Tensor | None = None

    def __init__(self, scores: Tensor, embeddings: Tensor, gamma: float, reach: int, picks: int) -> None:
        self._scores, self._gamma = scores, gamma
        self._span = Span(embeddings, 0.0, reach, picks)
        self._heights = scores  # of the candidates over the picks that count, once gains are known

    def gains(self) -> Tensor:
        self._heights = self._span.residuals().sqrt()
        return torch.addcmul(self._scores, self._heights, self._span.volumes(), value=self._gamma)

    def rounding(self, best: Tensor) -> Tensor:
        """A residual is off by about 4e-15, so its root is by 2e-15 / root."""
        heights = self._heights.gather(1, best).clamp_min(1e-6)
        return self._span.volumes() / heights * (self._gamma * 2e-15)

    def add(self, picked: Tensor) -> None:
        self._span.add(picked)
