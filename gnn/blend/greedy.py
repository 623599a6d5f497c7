"""The loop that the sequential blends share: take the best, tell the objective, take the next."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from gnn.blend.protocol import NONE, check, finite

BLOCK_BYTES = 2 << 20
"""Traits of as many users as fit are blended at a time, since every pick reads them all: a core's cache holds these."""


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
        lists = []
        for block in _blocks(traits):
            scores, traits_, valid_ = finite("relevance", relevance[block], valid[block]), traits[block], valid[block]
            if traits.is_floating_point():
                traits_ = finite("traits", traits_, valid_[:, :, None])
            lists.append(greedy(self.objective(scores, traits_, picks), valid_, picks))
        return torch.cat(lists)


def greedy(objective: Objective, valid: Tensor, picks: int) -> Tensor:
    """int64 [B, picks]: the greedy picks among valid bool [B, N], -1 after a list's end.

    A user whose candidates are used up goes on picking position 0 until the others are done; nobody sees it.
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
    """Runs of users; one for all on a GPU, which hides a read behind others, and at least one if there are none."""
    users = max(1, len(traits))
    each = (
        max(1, BLOCK_BYTES // max(1, 8 * traits[0].numel())) if len(traits) and traits.device.type == "cpu" else users
    )
    return (slice(start, start + each) for start in range(0, users, each))
