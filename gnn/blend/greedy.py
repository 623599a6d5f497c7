"""The loop that the sequential blends share: take the best, tell the objective, take the next."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from gnn.blend.protocol import NONE, check, finite

BLOCK_BYTES = 2 << 20
"""As many users as have float64 traits of this size are blended at a time: every pick reads them all, from cache."""


class Objective(Protocol):
    """What a block of users gains by each candidate, given the picks so far."""

    preference: Tensor | None
    """float64 [B, N]: decides between gains that differ by less than rounding; None: position does."""

    def gains(self) -> Tensor:
        """float64 [B, N]; not to be written to."""
        ...

    def rounding(self, best: Tensor) -> Tensor | float:
        """How far the gains of candidates equal to those at best int64 [B, 1] may lie apart: float64 [B, 1]."""
        ...

    def add(self, picked: Tensor) -> None:
        """Takes in one pick a user, int64 [B, 1]."""
        ...


class GreedyBlend(nn.Module):
    """A `Blend` that picks one by one."""

    def objective(self, scores: Tensor, traits: Tensor, picks: int) -> Objective:
        """For scores float64 [B, N] and traits [B, N, …], real ones in float64; zeros where not valid."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> Tensor:
        """See `Blend`."""
        check(relevance, traits, valid, picks)
        blocks = [self._picked(relevance[b], traits[b], valid[b], picks) for b in _blocks(traits)]
        return torch.cat(blocks)

    def _picked(self, relevance: Tensor, traits: Tensor, valid: Tensor, picks: int) -> Tensor:
        if traits.is_floating_point():
            traits = finite("traits", traits, valid[:, :, None])
        return greedy(self.objective(finite("relevance", relevance, valid), traits, picks), valid, picks)


def greedy(objective: Objective, valid: Tensor, picks: int) -> Tensor:
    """int64 [B, picks]: the greedy picks among valid bool [B, N], -1 after a list's end.

    A user whose candidates are used up goes on picking, unseen, until the others are done.
    """
    steps = min(picks, valid.shape[1])
    chosen = []
    barred = torch.zeros(valid.shape, dtype=torch.float64, device=valid.device).masked_fill_(~valid, float("-inf"))
    for step in range(steps):
        gains = objective.gains() + barred
        highest, best = gains.max(dim=1, keepdim=True)  # [B, 1]
        picked = _first(gains >= highest - objective.rounding(best), objective.preference)
        chosen.append(picked)
        if step + 1 < steps:
            barred.scatter_(1, picked, float("-inf"))
            objective.add(picked)
    chosen.append(valid.new_full((len(valid), picks - steps), NONE, dtype=torch.int64))
    ended = torch.arange(picks, device=valid.device) >= valid.sum(dim=1, keepdim=True)  # [B, picks]
    return torch.cat(chosen, dim=1).masked_fill_(ended, NONE)


def _first(close: Tensor, preference: Tensor | None) -> Tensor:
    """int64 [B, 1]: of those marked in bool [B, N] the most preferred, of these the first; 0 where none is marked."""
    if preference is None:
        return close.to(torch.uint8).argmax(dim=1, keepdim=True)
    return preference.masked_fill(~close, float("-inf")).argmax(dim=1, keepdim=True)


def rows_of(values: Tensor, picked: Tensor) -> Tensor:
    """values [B, N, D] at picked int64 [B, 1]: [B, 1, D]."""
    return values.gather(1, picked[:, :, None].expand(-1, 1, values.shape[2]))


def _blocks(traits: Tensor) -> Iterator[slice]:
    """Runs of users; all in one on a GPU, whose reads overlap."""
    users, candidates, width = traits.shape
    each = max(1, BLOCK_BYTES // max(1, 8 * candidates * width) if traits.device.type == "cpu" else users)
    return (slice(start, start + each) for start in range(0, max(1, users), each))
