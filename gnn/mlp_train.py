"""Trains the ranker's network: a softmax over each user's candidates, beside the prior's score.

The loss is that of the prior (ListNet's top-one loss, Cao et al., ICML 2007), so both pull the same way. A running mean
of the weights is what is kept (Polyak and Juditsky, 1992), at the epoch after which users kept apart lose least; where
none is better than the prior, nothing is added to it.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnn.mlp import Bools, Float32, ListwiseMlp, Scaling
from infra.settings import RankerSettings

LISTS = 32
"""Lists in a mini-batch."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
DROPOUT = 0.2
AVERAGED = 0.98
"""Share of the running mean of the weights that a step keeps."""
PATIENCE = 6
"""Epochs without improvement after which training stops."""
PAIRS_CHECKED = 65_536
"""Pairs scored at a time where nothing is learnt."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredLists:
    """Candidate lists of Q users. matrix float32 [n, F]; label bool [n]; offsets int64 [Q + 1]; prior float32 [n]: the
    scores that the network's are added to. Each list holds a held-out friend and someone else."""

    matrix: Float32
    label: Bools
    offsets: Int64
    prior: Float32

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class TrainedMlp:
    """model: evaluates. metrics: epochs run, the best one, and the curve of losses on lists kept apart."""

    model: ListwiseMlp
    metrics: dict[str, Any]


def train_mlp(train: ScoredLists, check: ScoredLists, wide: Bools, settings: RankerSettings, seed: int) -> TrainedMlp:
    """The network learnt on `train`, as it was when `check` lost least; `gnn.runtime.prepare` comes first.

    wide bool [F]: columns that span decades. Deterministic for a seed on one machine. Without lists to learn from, or
    to check on, it adds nothing to the prior.
    """
    if not len(train) or not len(check):
        return TrainedMlp(untrained(train.matrix.shape[1], settings.hidden), {"epochs": 0, "best_epoch": 0})
    draw = torch.Generator().manual_seed(_sub_seed(seed, 0))
    torch.manual_seed(_sub_seed(seed, 1))
    model = ListwiseMlp(Scaling.of(train.matrix, wide), settings.hidden, DROPOUT)
    run = _Run(model, _Padded.of(train, model), _Padded.of(check, model), draw)
    return run.learn(settings.epochs)


def untrained(features: int, hidden: int) -> ListwiseMlp:
    """A network that adds nothing."""
    one, zero = np.ones(features, np.float32), np.zeros(features, np.float32)
    return ListwiseMlp(Scaling(zero, one, zero, one), hidden).eval()


def _sub_seed(seed: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, 0x6D6C70, part]).generate_state(1)[0])


@dataclass(frozen=True)
class _Padded:
    """scaled float32 [n + 1, F], the last row of zeros; rows int64 [Q, L]: places in it, n after a list's end;
    prior float32 [Q, L], -inf after the end; share float32 [Q, L]: what each pair counts, in all sqrt(labels)."""

    scaled: Tensor
    rows: Tensor
    prior: Tensor
    share: Tensor

    @classmethod
    def of(cls, lists: ScoredLists, model: ListwiseMlp) -> "_Padded":
        sizes = np.diff(lists.offsets)
        at = np.arange(sizes.max())
        inside = at < sizes[:, None]
        rows = np.where(inside, lists.offsets[:-1, None] + at, len(lists.label))
        scaled = np.concatenate([model.scaling.apply(lists.matrix), np.zeros((1, lists.matrix.shape[1]), np.float32)])
        prior = np.append(lists.prior, -np.inf).astype(np.float32)[rows]
        hits = np.append(lists.label, False)[rows]
        share = hits / np.sqrt(hits.sum(axis=1, keepdims=True))
        return cls(*map(torch.from_numpy, (scaled, rows, prior, share.astype(np.float32))))

    def loss(self, model: ListwiseMlp, chosen: Tensor) -> Tensor:
        """Sum over the chosen lists."""
        longest = int(self.prior[chosen].isfinite().sum(1).max())
        scores = self.prior[chosen, :longest] + model.above(self.scaled[self.rows[chosen, :longest]])  # [B, L]
        logs = torch.log_softmax(scores, dim=1).masked_fill(scores.isneginf(), 0.0)
        return -(self.share[chosen, :longest] * logs).sum()

    @property
    def weight(self) -> float:
        return float(self.share.sum())


class _Run:
    def __init__(self, model: ListwiseMlp, train: _Padded, check: _Padded, draw: torch.Generator) -> None:
        self.model, self.train, self.check, self.draw = model, train, check, draw
        self.mean = copy.deepcopy(model).eval()
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.steps = 0

    def learn(self, epochs: int) -> TrainedMlp:
        best, best_loss, best_epoch = copy.deepcopy(self.mean), self.checked(), 0
        curve = [best_loss]
        for epoch in range(1, epochs + 1):
            self.epoch()
            curve.append(self.checked())
            if curve[-1] < best_loss:
                best, best_loss, best_epoch = copy.deepcopy(self.mean), curve[-1], epoch
            if epoch - best_epoch >= PATIENCE:
                break
        metrics = {"epochs": len(curve) - 1, "best_epoch": best_epoch, "losses": [round(loss, 5) for loss in curve]}
        return TrainedMlp(best, metrics)

    def epoch(self) -> None:
        self.model.train()
        order = torch.randperm(len(self.train.rows), generator=self.draw)
        for chosen in order.split(LISTS):
            self.optimiser.zero_grad()
            (self.train.loss(self.model, chosen) / len(chosen)).backward()
            self.optimiser.step()
            self._average()

    @torch.no_grad()
    def _average(self) -> None:
        """The mean follows faster at first, when it still holds the start."""
        self.steps += 1
        kept = min(AVERAGED, self.steps / (self.steps + 9))
        for mean, now in zip(self.mean.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - kept)

    @torch.no_grad()
    def checked(self) -> float:
        """Loss on the lists kept apart, a unit of weight."""
        step = max(1, PAIRS_CHECKED // self.check.rows.shape[1])
        lists = torch.arange(len(self.check.rows))
        return float(sum(self.check.loss(self.mean, chosen) for chosen in lists.split(step))) / self.check.weight
