"""Weighted utility: several objectives in one number a candidate."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from gnn.blend.protocol import NONE, check, finite


class WeightedUtility(nn.Module):
    """Picks by descending utility, the weighted sum of min-max normalised scores (Lee, SIGIR 1997, on CombSUM of Fox
    and Shaw, TREC-2):

        utility_j = sum over m of weights_m * (s_jm - min_m) / (max_m - min_m),

    min and max over the user's valid candidates; an objective on which these are equal adds 0. Objective 0 is the
    relevance, the others are the traits. A negative weight makes less of an objective better.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        if not weights:
            raise ValueError("weights: none given; the first is that of the relevance")
        self.register_buffer("weights", torch.tensor(list(weights), dtype=torch.float64))

    @torch.no_grad()
    def forward(self, relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> Tensor:
        """See `Blend`; traits are further objectives float32 [B, N, M], M one less than there are weights."""
        utility = self._summed(relevance, traits, valid, picks).masked_fill(~valid, float("-inf"))
        order = utility.argsort(dim=1, descending=True, stable=True)  # invalid ones last
        order = order.masked_fill(~valid.gather(1, order), NONE)[:, :picks]
        return pad(order, (0, picks - order.shape[1]), value=NONE)

    @torch.no_grad()
    def utility(self, relevance: Tensor, traits: Tensor, valid: Tensor) -> Tensor:
        """float32 [B, N], 0 where not valid: as relevance for another blend."""
        return self._summed(relevance, traits, valid, 0).masked_fill(~valid, 0.0).float()

    def _summed(self, relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> Tensor:
        check(relevance, traits, valid, picks)
        scores = torch.cat([relevance[:, :, None], traits], dim=2)  # [B, N, M + 1]
        if scores.shape[2] != len(self.weights):
            raise ValueError(f"traits: {scores.shape[2]} objectives with the relevance, {len(self.weights)} weights")
        return _normalised(finite("traits", scores, valid[:, :, None]), valid) @ self.weights


def _normalised(scores: Tensor, valid: Tensor) -> Tensor:
    """Each user's valid scores to [0, 1], objective by objective: float64 [B, N, M]."""
    if not scores.shape[1]:
        return scores
    outside = ~valid[:, :, None]
    low = scores.masked_fill(outside, float("inf")).amin(dim=1, keepdim=True)
    high = scores.masked_fill(outside, float("-inf")).amax(dim=1, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (scores - low) / spread, 0.0)
