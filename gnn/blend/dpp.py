"""Determinantal point process: picks whose kernel has the largest determinant, greedily."""

from torch import Tensor

from gnn.blend.greedy import GreedyBlend, Objective
from gnn.blend.protocol import all_finite
from gnn.blend.span import Span
from gnn.blend.window import checked_window, reach_of

RIDGE = 1e-6
"""Keeps the kernel of more picks than dimensions, of duplicates and of zero vectors positive."""


class GreedyDPP(GreedyBlend):
    """Fast greedy MAP inference (Chen et al., NeurIPS 2018): the next pick is the j that maximises

        det L_{W + j} / det L_W,  L_ij = exp(a relevance_i) (v_i . v_j) exp(a relevance_j) + 1e-6 [i = j],

    a = theta / (2 (1 - theta)), theta in [0, 1): 0 is diversity alone. W is the last window - 1 picks: as in the
    paper's sliding window, the window counts the candidate; None counts all. The ratio is kept for all candidates and
    updated at each pick, as in the paper. The ridge lets every candidate be picked in the end.

    traits of `forward`: embeddings float32 [B, N, D]. O(N D) a pick without a window, O(N D window) with one.
    """

    def __init__(self, theta: float = 0.7, window: int | None = None) -> None:
        super().__init__()
        if not 0 <= theta < 1:
            raise ValueError(f"theta: {theta} is not in [0, 1)")
        self.sharpness = theta / (2 * (1 - theta))
        self.window = checked_window(window)

    def objective(self, scores: Tensor, traits: Tensor, picks: int) -> Objective:
        quality = (2 * self.sharpness * scores).exp().sqrt()  # [B, N]
        all_finite(quality, f"relevance: exp({2 * self.sharpness:g} relevance) is infinite; bring it near [0, 1]")
        return _Determinant(traits * quality[:, :, None], reach_of(self.window, picks), picks)


class _Determinant:
    """Of two duplicates of what is picked, the one of higher relevance adds more, by 1e-12 / L: less than rounding."""

    def __init__(self, rows: Tensor, reach: int, picks: int) -> None:
        self._span = Span(rows, RIDGE, reach, picks)
        self.preference: Tensor | None = self._span.whole

    def gains(self) -> Tensor:
        return self._span.residuals()

    def rounding(self, best: Tensor) -> Tensor:
        return self._span.whole.gather(1, best) * 1e-15

    def add(self, picked: Tensor) -> None:
        self._span.add(picked)
