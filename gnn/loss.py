"""Ranking losses on unit embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor


def in_batch_loss(left: Tensor, right: Tensor, friends: Tensor, log_share: Tensor, temperature: float) -> Tensor:
    """Softmax over the batch with correction for popularity (Yi et al., RecSys 2019, eq. 4): scalar.

    left, right float32 [B, D]: pair i are friends. friends bool [B, B]: left i and right j are friends or the same,
    so j is no negative of i. log_share float32 [B]: log of the chance that right j is drawn into a batch.
    """
    logits = left @ right.T / temperature - log_share  # [B, B]
    own = torch.eye(len(left), dtype=torch.bool, device=left.device)
    logits = logits.masked_fill(friends & ~own, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(left), device=left.device))


def pairwise_loss(left: Tensor, right: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """BPR (Rendle et al., UAI 2009): a friend before a friend's friend who is none. All float32 [B, D]; scalar."""
    margin = (left * right).sum(1) - (left * negative).sum(1)  # [B]
    return F.softplus(-margin / temperature).mean()
