"""What a mini-batch is scored by.

The model ranks a friend before everyone else in the group, corrected for how often popular users turn up there, and
before a friend of a friend who is none.
"""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnn.inputs import Inputs
from gnn.kernels import friends_within
from gnn.loss import in_batch_loss, pairwise_loss

TEMPERATURE = 0.1
HARD_WEIGHT = 0.5
NEGATIVES_GROUP = 256
"""Friendships of a mini-batch that are each other's negatives: the loss costs batch x group, not batch squared."""


class Objective:
    """The loss over the friendships of one view."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self._indptr = np.asarray(inputs.connections.indptr)
        self._indices = np.asarray(inputs.connections.indices)
        self._log_share = torch.from_numpy(np.log(np.maximum(inputs.degrees, 1)).astype(np.float32))
        self._device = device

    def loss(self, embedded: Tensor, data: Data, batch: int) -> Tensor:
        """What the friendships of `data`, a share of a mini-batch of `batch`, add to its mean loss: scalar.

        embedded float32 [seeds, D]. Both ends of each friendship are ranked for the other, a group at a time.
        """
        first, second = data.edge_label_index
        own = len(first) // 2
        left, right, negative = embedded[first[:own]], embedded[second[:own]], embedded[second[own:]]
        left_row, right_row = data.n_id[first[:own]], data.n_id[second[:own]]
        loss = HARD_WEIGHT * own * pairwise_loss(left, right, negative, TEMPERATURE)
        for start in range(0, own, NEGATIVES_GROUP):
            at = slice(start, start + NEGATIVES_GROUP)
            known = self._friends(left_row[at], right_row[at])
            for one, other, row, friends in (
                (left, right, right_row, known),
                (right, left, left_row, known.T),
            ):
                share = self._log_share[row[at]].to(self._device)
                loss = loss + len(known) * in_batch_loss(one[at], other[at], friends, share, TEMPERATURE)
        return loss / batch

    def _friends(self, left: Tensor, right: Tensor) -> Tensor:
        """bool [left, right]: no negatives of each other."""
        order = np.argsort(right.numpy(), kind="stable")
        known = friends_within(self._indptr, self._indices, left.numpy(), right.numpy(), order)
        return torch.from_numpy(known).to(self._device)
