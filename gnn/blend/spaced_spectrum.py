"""Sliding Spectrum Decomposition with soft spacing over utilities, a list at a time, in a form that exports as a loop.

The other blends are batched over users and keep their state in place; a graph of them would hold every pick anew. Here
a pick is a function of tensors, compiled by TorchScript, so that its loop stays one in ONNX.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from gnn.blend.span import FLAT


class SpacedSpectrum(nn.Module):
    """SSD (Huang et al., KDD 2021) with soft spacing (Pinterest Engineering, 2026): the pick for position t is the j
    that maximises

        utility_j + gamma * vol(v_w1, …, v_wm, v_j)
                  - spacing * sum over d = 1..window - 1 of [j and the pick at t - d share a group] / d,

    w1..wm being the last window - 1 picks. Volumes, windows and ties are those of `gnn.blend.ssd.SlidingSpectrum`,
    groups those of `gnn.blend.spacing.SoftSpacing`.
    """

    def __init__(self, gamma: float = 0.5, spacing: float = 0.1, window: int = 10) -> None:
        super().__init__()
        if gamma < 0 or spacing < 0 or window < 2:
            raise ValueError(f"gamma {gamma}, spacing {spacing}, window {window}: two not negative, and 2 or more")
        self.gamma, self.spacing, self.window = float(gamma), float(spacing), window

    @torch.no_grad()
    def forward(self, utility: Tensor, vectors: Tensor, groups: Tensor, picks: int) -> Tensor:
        """float32 [n]: picks - t for the t-th pick (0, 1, …), 0 for who is not picked.

        utility float32 [n], vectors float32 [n, D] of unit or zero rows, groups int64 [n, G], -1 after a person's last.
        """
        reach = self.window - 1
        given = utility.double(), vectors.double(), groups
        return _compiled()(*given, self.gamma, self.spacing, reach, picks, FLAT).float()  # type: ignore[no-any-return]


@cache
def _compiled() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is to go one day; so far it is what exports loops
        return torch.jit.script(_picked)


def _picked(
    utility: Tensor, vectors: Tensor, groups: Tensor, gamma: float, spacing: float, reach: int, picks: int, flat: float
) -> Tensor:
    """All in float64. A lane is a basis over the last picks, as in `gnn.blend.span`: the first over the last one, the
    next over the last two, …, the last over the `reach` that count, each moving on by a lane with every pick."""
    people, width = vectors.shape[0], vectors.shape[1]
    places = torch.arange(people)
    whole = (vectors * vectors).sum(dim=1)  # [n]
    left = whole[None].repeat(reach, 1)  # [lanes, n]: squared heights over a lane's picks
    basis = torch.zeros(reach, reach, width, dtype=torch.float64)  # [lanes, picks, D]
    volumes = torch.ones(reach, 1, dtype=torch.float64)
    shared = torch.zeros(reach, people, dtype=torch.float64)  # whether a group is shared, with the last pick first
    decay = spacing / torch.arange(1, reach + 1, dtype=torch.float64)[:, None]
    barred = torch.zeros(people, dtype=torch.float64)
    worth, rest = torch.zeros(people, dtype=torch.float64), torch.full([1], picks, dtype=torch.float64)
    for _ in range(min(picks, people)):
        heights = left[reach - 1].masked_fill(left[reach - 1] <= flat, 0.0).sqrt()
        volume = volumes[reach - 1]
        gains = utility + gamma * volume * heights - (decay * shared).sum(dim=0) + barred
        best = gains.argmax(dim=0, keepdim=True)  # [1]
        rounding = volume / heights.index_select(0, best).clamp_min(1e-6) * (gamma * 2e-15) + spacing * 1e-14
        close = gains >= gains.index_select(0, best) - rounding
        picked = close.to(torch.uint8).argmax(dim=0, keepdim=True)  # of equals the first
        is_picked = places == picked
        worth = torch.where(is_picked, rest, worth)
        rest = rest - 1.0
        barred = barred.masked_fill(is_picked, float("-inf"))
        theirs = groups.index_select(0, picked)  # [1, G]
        same = (groups[:, :, None] == theirs[:, None, :]) & (groups >= 0)[:, :, None]  # [n, G, G]
        shared = torch.cat([same.flatten(1).any(dim=1).double()[None], shared[: reach - 1]])
        left = torch.cat([whole[None], left[: reach - 1]])
        basis = torch.cat([torch.zeros_like(basis[:1]), basis[: reach - 1]])
        volumes = torch.cat([torch.ones_like(volumes[:1]), volumes[: reach - 1]])
        row = vectors.index_select(0, picked)  # [1, D]
        own = left.index_select(1, picked)  # [lanes, 1]
        own = own.masked_fill(own <= flat, 0.0)
        onto = torch.matmul(basis, row[0])  # [lanes, picks]
        projected = torch.matmul(onto[:, None], basis)[:, 0]  # [lanes, D]
        fresh = (row - projected) * (own.sqrt() / own.clamp_min(flat))
        basis = torch.cat([fresh[:, None], basis[:, : reach - 1]], dim=1)
        shares = torch.matmul(fresh, vectors.t())  # [lanes, n]
        left = left - shares * shares
        volumes = volumes * own.sqrt()
    return worth
