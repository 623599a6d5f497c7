"""A blend as a model of the registry: the columns of one list in, a score a person out, by which the list is sorted."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gnn.blend.spaced_spectrum import SpacedSpectrum
from gnn.blend.utility import WeightedUtility

EMBEDDING, ATTRIBUTES = "embedding", "attributes"
ADJUSTED = "adjusted"
PICKS = 50
"""First places that are blended; the others follow by utility."""


class ListModel(nn.Module):
    """Utility weights over columns of numbers, then SSD with soft spacing.

    utility: column -> weight, such as {"score": 1.0, "price": -0.5}; the columns are the ranker's score, what exposure
    takes, and any feature of the pair. Change this module, or write another of the same columns and scores:
    `gnn.blend.list_export` makes a folder of the registry of either.
    """

    def __init__(self, utility: Mapping[str, float], blend: SpacedSpectrum, picks: int = PICKS) -> None:
        super().__init__()
        self.columns = tuple(utility)
        self.utility = WeightedUtility(list(utility.values()))
        self.blend, self.picks = blend, picks

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """Scores float32 [n] of a list: that of the t-th pick is picks - t, and of those not picked at most 0.

        columns: embedding float32 [n, D], attributes int64 [n, A] padded with -1, and those of the utility [n].
        """
        values = torch.stack([columns[name].float() for name in self.columns], dim=1)[None]  # [1, n, M]
        valid = torch.ones_like(values[:, :, 0], dtype=torch.bool)
        utility = self.utility.utility(values[:, :, 0], values[:, :, 1:], valid)[0]  # [n]
        picked = self.blend(utility, columns[EMBEDDING].float(), columns[ATTRIBUTES], self.picks)
        return torch.where(picked > 0, picked, utility - utility.max())


class LessPrices(ListModel):
    """Of the ranker's score less the price alone, which is how the night orders lists before it blends them."""

    def __init__(self, blend: SpacedSpectrum, picks: int = PICKS) -> None:
        super().__init__({ADJUSTED: 1.0}, blend, picks)

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        """As ListModel's, of the columns score and price."""
        return super().forward({**columns, ADJUSTED: columns["score"] - columns["price"]})
