"""What candidates add to the picks before them: what is left of them after projection, over all picks or the last few.

Rows x_j of X and a ridge e give the kernel L = X X^T + e I. Adding j to picks W multiplies det L_W by

    residual_j = L_jj - L_jW L_W^-1 L_Wj = e + |x_j|^2 - sum_k (x_j . q_k)^2,

where the q_k, one a pick, come out of Gram-Schmidt: q_i = (x_i - sum_k (x_i . q_k) q_k) / sqrt(residual_i). With e = 0
they are orthonormal and sqrt(residual_j) is the height of x_j over the picks. These are d_j^2 and c_jk of Chen et al.
(NeurIPS 2018, section 4), with basis vectors [K, D] kept in place of Cholesky rows [N, K].

A sliding window has to let the oldest pick go. Nothing is given back here, which rounds, and fails once a duplicate was
in the window: each of `reach` bases starts at another pick, so that one of them always holds exactly the last `reach`.
"""

import torch
from torch import Tensor

from gnn.blend.greedy import rows_of

FLAT = 1e-12
"""A squared length below this, of rows of length one, is rounding."""


class Span:
    """Over rows float64 [B, N, D], with ridge e; `reach`: how many of the last picks count; 0: none do."""

    def __init__(self, rows: Tensor, ridge: float, reach: int, picks: int) -> None:
        users, _, width = rows.shape
        self._reach, self._sliding = reach, reach < picks - 1
        self._lanes = reach if self._sliding else 1
        self._rows, self._columns = rows, rows.transpose(1, 2)
        self._ridge = ridge
        self.whole = rows.square().sum(dim=2) + ridge  # L_jj, [B, N]
        self._left = self.whole[:, None].repeat(1, self._lanes, 1)  # [B, lanes, N]
        self._basis = rows.new_zeros(users, self._lanes, reach, width)
        self._volumes = rows.new_ones(users, self._lanes, 1)
        self._added = 0

    def residuals(self) -> Tensor:
        """residual_j over the picks that count: float64 [B, N]."""
        return self._cleaned(self._left[:, self._lane()] if self._reach else self.whole)

    def volumes(self) -> Tensor:
        """sqrt(det L) of the picks that count: float64 [B, 1], 1 where there are none."""
        return self._volumes[:, self._lane()] if self._reach else torch.ones_like(self.whole[:, :1])

    def add(self, picked: Tensor) -> None:
        """Takes in picks int64 [B, 1]: into every lane, the one that held the oldest pick starting anew."""
        if not self._reach:
            return
        if self._sliding:
            self._restart(self._added % self._lanes)
        rows = rows_of(self._rows, picked)  # [B, 1, D]
        left = self._cleaned(self._left.gather(2, picked[:, :, None].expand(-1, self._lanes, 1)))  # [B, lanes, 1]
        heights = left.sqrt()
        scale = heights / left.clamp_min(FLAT)  # 1 / heights, and 0 where there is no height
        fresh = (rows - self._projected(rows)).mul_(scale)  # [B, lanes, D]
        self._basis[:, :, self._added % self._reach] = fresh
        shares = torch.bmm(fresh, self._columns)  # [B, lanes, N]
        self._left.addcmul_(shares, shares, value=-1)
        self._volumes *= heights
        self._added += 1

    def _lane(self) -> int:
        """The lane of the picks that count: lane 0 until it has its fill, then the one longest under way."""
        return self._added % self._lanes if self._sliding and self._added >= self._lanes else 0

    def _restart(self, lane: int) -> None:
        self._left[:, lane] = self.whole
        self._basis[:, lane] = 0
        self._volumes[:, lane] = 1

    def _projected(self, rows: Tensor) -> Tensor:
        """rows [B, 1, D] onto each lane's basis: [B, lanes, D]."""
        if not self._added:
            return torch.zeros_like(self._basis[:, :, 0])
        users, lanes, _, width = self._basis.shape
        basis = self._basis[:, :, : min(self._added, self._reach)].flatten(0, 1)  # [B * lanes, s, D]
        own = rows.expand(users, lanes, width).reshape(users * lanes, 1, width)
        return torch.bmm(torch.bmm(own, basis.transpose(1, 2)), basis).view(users, lanes, width)

    def _cleaned(self, left: Tensor) -> Tensor:
        return left.clamp_min(self._ridge) if self._ridge else left.masked_fill(left <= FLAT, 0.0)
