"""Training the encoder on the friendships of the past view.

A mini-batch holds friendships, hidden from the messages that reach their ends, and for each a friend of a friend who
is not a friend. The model ranks the friend before everyone else in the batch, corrected for how often popular users
turn up there, and before the friend of a friend. Held-out friendships of validation users say when to stop; those of
report users are never looked at.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnn.batches import link_batches, subgraph
from gnn.embed import embed_rows
from gnn.inputs import Inputs, Vocabulary, feature_weights
from gnn.kernels import friends_within
from gnn.loss import in_batch_loss, pairwise_loss
from gnn.model import EncoderShape, ResidualPropagation
from gnn.optimise import RowAdam
from gnn.runtime import device_of
from gnn.sampler import CsrSampler
from gnn.validate import Validation
from infra.graph import Csr, Graph, Int64
from infra.settings import EncoderSettings

MODEL = "residual_propagation"
TEMPERATURE = 0.1
HARD_WEIGHT = 0.5
NEGATIVES_GROUP = 256
"""Friendships of a mini-batch that are each other's negatives: the loss costs batch x group, not batch squared."""
TABLE_RATE = 1.0
"""Step size of the tables, as a multiple of that of the dense weights."""
EPOCHS = 8
"""Times that a friendship is a target at most: small graphs are learnt by heart long before max_steps."""
LONELY_SHARE = 0.1
"""Share of a mini-batch's users who hear nobody, so that profiles alone learn to place a new user."""
MESSAGES = 200_000
"""Sampled messages a mini-batch up to which the fanout is raised."""
RAISED_FANOUT = 4
"""The fanout is raised to this multiple of the setting at most."""
VALIDATIONS = 12
"""Validations in a full run."""
MIN_VALIDATION_PAIRS = 200
"""Fewer held-out pairs than this are mostly noise, and training runs to the end."""


@dataclass(frozen=True)
class Trained:
    encoder: ResidualPropagation
    metrics: dict[str, Any]


def train(graph: Graph, settings: EncoderSettings, seed: int, progress: Callable[[str], None]) -> Trained:
    """Trains on graph.past; `gnn.runtime.prepare` comes first. Deterministic for a seed on one machine."""
    device = device_of(settings.device)
    vocabulary = Vocabulary.of(graph)
    weights = feature_weights(vocabulary, graph, graph.past)
    shape = EncoderShape(settings.dimensions, settings.hidden, settings.layers, graph.users, vocabulary)
    encoder = ResidualPropagation(shape)
    encoder.feature_weights.copy_(torch.from_numpy(weights))
    encoder.to(device)
    inputs = Inputs.of(vocabulary, weights, graph, graph.past)
    metrics: dict[str, Any] = {"device": device.type, "parameters": sum(p.numel() for p in encoder.parameters())}
    targets = min(settings.max_steps * settings.batch_size, EPOCHS * (inputs.connections.entries // 2))
    pairs = friendships_to_learn(inputs.connections, targets, seed)
    if not pairs.shape[1]:
        return Trained(encoder, {**metrics, "trained": False, "steps": 0, "why": "no friendships in the past view"})
    validation = Validation.of(graph, seed)
    run = _Run(encoder, inputs, validation, settings, progress)
    run.learn(pairs)
    return Trained(encoder, {**metrics, "trained": True, **run.metrics()})


def friendships_to_learn(connections: Csr, wanted: int, seed: int) -> Int64:
    """At most `wanted` friendships in random order, both ways round with equal chance, again and again if few: [2, M].

    int64; each friendship appears floor or ceil of wanted / friendships times.
    """
    row = np.repeat(np.arange(connections.rows), connections.degrees())
    forward = np.flatnonzero(row < connections.indices)
    draw = np.random.default_rng([seed, 0])
    rounds = [draw.permutation(forward) for _ in range(-(-wanted // len(forward)) if len(forward) else 0)]
    chosen = np.concatenate(rounds)[:wanted] if rounds else forward
    pairs = np.stack([row[chosen], connections.indices[chosen].astype(np.int64)])
    flip = draw.random(len(chosen)) < 0.5
    pairs[:, flip] = pairs[::-1, flip]
    return np.ascontiguousarray(pairs)


def fanouts_of(settings: EncoderSettings, users: int) -> list[int]:
    """Fanout of each layer: the setting, half of it past the first layer; more where the graph is so small that the
    messages of a batch still fit MESSAGES, up to RAISED_FANOUT times the setting."""
    seeds, affordable = min(users, 3 * settings.batch_size), 1
    for fanout in range(RAISED_FANOUT * settings.fanout, 1, -1):
        listeners, messages = seeds, 0
        for _ in range(settings.layers):
            messages += listeners * fanout
            listeners = min(users, listeners * (1 + fanout))
        if messages <= MESSAGES:
            affordable = fanout
            break
    deeper = max(-(-settings.fanout // 2), affordable)
    return [max(settings.fanout, affordable), *[deeper] * (settings.layers - 1)]


class _Run:
    """One training run: the loop, early stopping, and what is reported of it."""

    def __init__(
        self,
        encoder: ResidualPropagation,
        inputs: Inputs,
        validation: Validation,
        settings: EncoderSettings,
        progress: Callable[[str], None],
    ) -> None:
        self.encoder, self.inputs, self.validation = encoder, inputs, validation
        self.settings, self.progress = settings, progress
        self.device = encoder.feature_weights.device
        self.curve: list[dict[str, float]] = []
        self.best_step = self.step = 0
        self._log_share = torch.from_numpy(np.log(np.maximum(inputs.degrees, 1)).astype(np.float32))

    def learn(self, pairs: Int64) -> None:
        settings = self.settings
        fanouts = fanouts_of(settings, self.inputs.users)
        sampler = CsrSampler(self.inputs.connections, fanouts, hard_negatives=True)
        interval = -(-pairs.shape[1] // (settings.batch_size * VALIDATIONS))
        optimisers = self._optimisers()
        best, losses, stale = self._validated(0.0), [], 0
        kept = copy.deepcopy(self.encoder.state_dict())
        for self.step, data in enumerate(link_batches(sampler, pairs, settings.batch_size), start=1):
            losses.append(self._one_step(data, optimisers))
            if self.step % interval:
                continue
            gain = self._validated(float(np.mean(losses)))
            losses = []
            if gain > best:
                best, stale, self.best_step = gain, 0, self.step
                kept = copy.deepcopy(self.encoder.state_dict())
            else:
                stale += 1
            if self._can_stop and stale >= settings.patience:
                break
        if self._can_stop:
            self.encoder.load_state_dict(kept)
        else:
            self.best_step = self.step

    @property
    def _can_stop(self) -> bool:
        return self.validation.pairs >= MIN_VALIDATION_PAIRS

    def metrics(self) -> dict[str, Any]:
        return {
            "steps": self.step,
            "best_step": self.best_step,
            "early_stopping": self._can_stop,
            "validation_pairs": self.validation.pairs,
            "curve": self.curve,
        }

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        tables = [self.encoder.features.weight, self.encoder.vectors.weight]
        dense = [p for p in self.encoder.parameters() if all(p is not t for t in tables)]
        rate = self.settings.learning_rate
        return [torch.optim.AdamW(dense, lr=rate), RowAdam(tables, lr=TABLE_RATE * rate)]

    def _one_step(self, data: Data, optimisers: list[torch.optim.Optimizer]) -> float:
        lonely = torch.rand(data.num_sampled_nodes[0]) < LONELY_SHARE
        embedded = self.encoder(subgraph(self.inputs, data, lonely.numpy(), self.device))
        loss = self._loss(embedded, data)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimisers[0].param_groups for p in g["params"]], 1.0)
        for optimiser in optimisers:
            optimiser.step()
        return float(loss.detach())

    def _loss(self, embedded: Tensor, data: Data) -> Tensor:
        """Both ends of each friendship are ranked for the other, NEGATIVES_GROUP friendships at a time."""
        first, second = data.edge_label_index
        batch = len(first) // 2
        left, right, negative = embedded[first[:batch]], embedded[second[:batch]], embedded[second[batch:]]
        left_row, right_row = data.n_id[first[:batch]], data.n_id[second[:batch]]
        loss = HARD_WEIGHT * batch * pairwise_loss(left, right, negative, TEMPERATURE)
        for start in range(0, batch, NEGATIVES_GROUP):
            at = slice(start, start + NEGATIVES_GROUP)
            known = self._friends(left_row[at], right_row[at])
            for one, other, row, friends in (
                (left, right, right_row, known),
                (right, left, left_row, known.T),
            ):
                ranked = in_batch_loss(one[at], other[at], friends, self._share(row[at]), TEMPERATURE)
                loss = loss + len(known) * ranked
        return loss / batch

    def _friends(self, left: Tensor, right: Tensor) -> Tensor:
        """bool [left, right]: no negatives of each other."""
        connections = self.inputs.connections
        order = np.argsort(right.numpy(), kind="stable")
        known = friends_within(
            np.asarray(connections.indptr), np.asarray(connections.indices), left.numpy(), right.numpy(), order
        )
        return torch.from_numpy(known).to(self.device)

    def _share(self, rows: Tensor) -> Tensor:
        return self._log_share[rows].to(self.device)

    def _validated(self, loss: float) -> float:
        if not self.validation.pairs:
            self.curve.append({"step": self.step, "loss": loss})
            return 0.0
        self.encoder.eval()
        measured = self.validation.measure(embed_rows(self.encoder, self.inputs))
        self.encoder.train()
        self.curve.append({"step": self.step, "loss": round(loss, 6), **measured})
        self.progress(f"step {self.step}: loss {loss:.4f}, validation hits@20 {measured['hits20']:.4f}")
        return measured["gain"]
