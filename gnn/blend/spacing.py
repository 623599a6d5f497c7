"""Soft spacing: people of one group (a company, a school, a community) are kept apart, not left out."""

import torch
from torch import Tensor

from gnn.blend.greedy import GreedyBlend, Objective, rows_of
from gnn.blend.window import checked_window, reach_of


class SoftSpacing(GreedyBlend):
    """Soft spacing by inverse distance (Pinterest Engineering, "Evolution of Multi-Objective Optimization at Pinterest
    Home feed", 2026): the pick for position t is the j that maximises

        relevance_j - weight * sum over d = 1..window - 1 of [j and the pick at t - d share a group] / d.

    The source has one set of groups to keep apart, in which all count as the same; here each group is a set of its own.
    The window counts the candidate, as in the other blends; None goes back to the first pick.

    traits of `forward`: groups int64 [B, N, G], -1 where a candidate has no more. O(N (G^2 + window)) a pick.
    """

    def __init__(self, weight: float = 0.1, window: int | None = 10) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight: {weight} is negative")
        self.weight, self.window = weight, checked_window(window)

    def objective(self, scores: Tensor, traits: Tensor, picks: int) -> Objective:
        if traits.dtype != torch.int64:
            raise ValueError(f"traits: {traits.dtype} is not torch.int64, the type of groups")
        return _Spaced(scores, traits, self.weight, reach_of(self.window, picks))


class _Spaced:
    preference: Tensor | None = None

    def __init__(self, scores: Tensor, groups: Tensor, weight: float, reach: int) -> None:
        users, candidates = scores.shape
        self._scores, self._groups = scores, groups.clamp_min(-1)
        self._shared = scores.new_zeros(users, reach, candidates)  # pick t at t % reach, until overwritten
        slots = torch.arange(reach, device=scores.device)
        distance = 1 + (slots[:, None] - slots[None, :] - 1) % max(1, reach)  # [position % reach, slot]
        self._decay = weight / distance.double()
        self._weight, self._reach, self._added = weight, reach, 0

    def gains(self) -> Tensor:
        if not self._reach:
            return self._scores
        return self._scores - (self._decay[self._added % self._reach] @ self._shared)

    def rounding(self, best: Tensor) -> float:
        return self._weight * 1e-14

    def add(self, picked: Tensor) -> None:
        if self._reach:
            theirs = rows_of(self._groups, picked)  # [B, 1, G]
            theirs = theirs.masked_fill(theirs < 0, -2)  # no group is none that another has none of
            same = self._groups[:, :, :, None] == theirs[:, :, None, :]  # [B, N, G, G]
            self._shared[:, self._added % self._reach] = same.flatten(2).any(dim=2)
            self._added += 1
