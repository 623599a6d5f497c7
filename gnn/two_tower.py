"""Two towers for users without friends: one reads the profile of who looks, the other that of who is shown.

A tower adds up hashed embeddings of a user's attribute values and affiliations; the score of a pair is the dot product.
Both are learnt on friendships by a softmax over the mini-batch, each score less the log of how likely the candidate was
drawn (Bengio and Senécal, 2008; Yi et al., RecSys 2019). How many friends a candidate has is weighed beside the towers,
so that their vectors need not hold it. They are saved as plain matrices: a vector a user for each tower.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gnn.inputs import Vocabulary, feature_bags, feature_weights
from infra.graph import Csr, Float32, Graph, Int64, View, ViewName

DIMENSIONS = 64
BATCH = 1024
"""Friendships in a mini-batch, whose candidates are each other's negatives."""
EPOCH = 20
"""Mini-batches between two looks at the friendships kept apart."""
EPOCHS, PATIENCE = 60, 8
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
DROPOUT = 0.2
START = 0.3
"""Standard deviation of the first embeddings, the same in both towers: who is alike is near from the start."""
CHECKED = 4096
"""Friendships kept apart that are looked at, at most."""
USERS_AT_ONCE = 65_536


class TwoTower(nn.Module):
    """rows: of the feature table, see gnn.inputs."""

    def __init__(self, rows: int, dimensions: int = DIMENSIONS) -> None:
        super().__init__()
        self.viewer = nn.EmbeddingBag(rows, dimensions, mode="sum")
        nn.init.normal_(self.viewer.weight, std=START)
        self.candidate = copy.deepcopy(self.viewer)
        self.popularity = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, viewers: "Bags", candidates: "Bags", log_friends: Tensor) -> Tensor:
        """Scores float32 [B, C] of every candidate for every viewer; log_friends float32 [C]."""
        own, theirs = self.drop(viewers.read_by(self.viewer)), self.drop(candidates.read_by(self.candidate))
        return own @ theirs.T + self.popularity * log_friends


@dataclass(frozen=True)
class Bags:
    """Users as weighted bags of rows of the feature table: entries int64, starts int64 [B], weights float32."""

    entries: Tensor
    starts: Tensor
    weights: Tensor

    @classmethod
    def of(cls, bags: Csr, users: npt.NDArray[Any]) -> "Bags":
        size = bags.degrees()[users]
        first = np.cumsum(size) - size
        at = bags.entries_of(users)
        values = np.asarray(bags.values, np.float32)[at]
        return cls(*map(torch.from_numpy, (bags.indices[at].astype(np.int64), first.astype(np.int64), values)))

    def read_by(self, tower: nn.EmbeddingBag) -> Tensor:
        return tower(self.entries, self.starts, per_sample_weights=self.weights)


@dataclass(frozen=True)
class TrainedTowers:
    """model: evaluates. vocabulary, weights: how it reads users. metrics: epochs run, the best one, losses."""

    model: TwoTower
    vocabulary: Vocabulary
    weights: Float32
    metrics: dict[str, Any]

    @torch.no_grad()
    def vectors(self, graph: Graph, name: ViewName) -> Float32:
        """Everyone as a viewer and as a candidate, float32 [2, N, DIMENSIONS]."""
        bags = _bags(graph, graph.view(name), self.vocabulary, self.weights)
        out = np.empty((2, graph.users, DIMENSIONS), np.float32)
        for first in range(0, graph.users, USERS_AT_ONCE):
            some = Bags.of(bags, np.arange(first, min(first + USERS_AT_ONCE, graph.users)))
            for at, tower in enumerate((self.model.viewer, self.model.candidate)):
                out[at, first : first + USERS_AT_ONCE] = some.read_by(tower).numpy()
        return out


def train_towers(graph: Graph, view: View, friends: Csr, check: Int64, seed: int) -> TrainedTowers:
    """Learnt on `friends`, as it was when `check` lost least; `gnn.runtime.prepare` comes first.

    view: whose affiliations are read; friends: N rows, symmetric, those to learn from. check int64 [H, 2]: friendships
    kept apart, viewer and candidate, of viewers without friends in `friends`. Deterministic for a seed on one machine.
    """
    vocabulary = Vocabulary.of(graph)
    weights = feature_weights(vocabulary, graph, view)
    torch.manual_seed(_sub_seed(seed, 0))
    run = _Run(TwoTower(vocabulary.rows), _bags(graph, view, vocabulary, weights), friends, _sub_seed(seed, 1))
    model, metrics = run.learn(run.drawn(check, CHECKED))
    return TrainedTowers(model.eval(), vocabulary, weights, metrics)


def _bags(graph: Graph, view: View, vocabulary: Vocabulary, weights: Float32) -> Csr:
    """What all towers read; nothing of friends, whom a viewer does not have."""
    nobody = np.zeros(graph.users, np.int64)
    codes = np.asarray(graph.attribute_codes)
    return feature_bags(vocabulary, weights, codes, view.affiliations, graph.entity_kind, nobody)


def _sub_seed(seed: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, 0x746F77, part]).generate_state(1)[0])


class _Run:
    def __init__(self, model: TwoTower, bags: Csr, friends: Csr, seed: int) -> None:
        self.model, self.bags, self.friends = model, bags, friends
        self.draw = np.random.default_rng(seed)
        degrees = np.maximum(friends.degrees(), 1).astype(np.float32)
        self.log_friends = torch.from_numpy(np.log1p(degrees))
        self.log_drawn = torch.from_numpy(np.log(degrees / degrees.sum()))
        tables = [model.viewer.weight, model.candidate.weight]
        groups = [{"params": tables, "weight_decay": WEIGHT_DECAY}, {"params": [model.popularity], "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=LEARNING_RATE)

    def learn(self, check: Int64) -> tuple[TwoTower, dict[str, Any]]:
        best, losses, best_epoch = copy.deepcopy(self.model), [self.checked(check)], 0
        for epoch in range(1, EPOCHS + 1 if self.friends.entries and len(check) else 1):
            self.epoch()
            losses.append(self.checked(check))
            if losses[-1] < losses[best_epoch]:
                best, best_epoch = copy.deepcopy(self.model), epoch
            if epoch - best_epoch >= PATIENCE:
                break
        return best, {"epochs": len(losses) - 1, "best_epoch": best_epoch, "losses": [round(x, 5) for x in losses]}

    def epoch(self) -> None:
        self.model.train()
        for _ in range(EPOCH):
            at = np.sort(self.draw.integers(0, self.friends.entries, BATCH))
            viewer = np.searchsorted(self.friends.indptr, at, side="right") - 1
            self.optimiser.zero_grad()
            self.loss(np.stack([viewer, self.friends.indices[at]], axis=1)).backward()
            self.optimiser.step()

    def loss(self, pairs: Int64) -> Tensor:
        """Mean over friendships int64 [B, 2] of the softmax of a batch's candidates."""
        viewer, candidate = pairs.T
        named = torch.from_numpy(np.ascontiguousarray(candidate))
        scores = self.model(Bags.of(self.bags, viewer), Bags.of(self.bags, candidate), self.log_friends[named])
        again = (named[:, None] == named[None]).fill_diagonal_(False)
        scores = (scores - self.log_drawn[named]).masked_fill(again, -torch.inf)
        return nn.functional.cross_entropy(scores, torch.arange(len(pairs)))

    @torch.no_grad()
    def checked(self, pairs: Int64) -> float:
        self.model.eval()
        parts = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
        return sum(float(self.loss(part)) * len(part) for part in parts) / max(len(pairs), 1)

    def drawn(self, pairs: Int64, count: int) -> Int64:
        return pairs if len(pairs) <= count else self.draw.choice(pairs, count, replace=False)
