"""What an encoder is: what it reads of a mini-batch, and the base of every model.

A model is one file with one subclass of `Encoder`, named in gnn/models.py. Training runs `forward` over sampled
mini-batches, embedding runs the same parts layer by layer over everyone; the base class holds what both share.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gnn.inputs import Vocabulary
from gnn.sparse import sparse_product

VECTOR_ROWS = 1 << 20
"""Users who have a vector of their own; past it they share by row."""
CONTEXT = 3


@dataclass(frozen=True)
class EncoderShape:
    """What is needed to build a model of the right shape."""

    dimensions: int
    hidden: int
    layers: int
    users: int
    vocabulary: Vocabulary

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "vocabulary": self.vocabulary.to_json()}

    @classmethod
    def from_json(cls, head: dict[str, Any]) -> "EncoderShape":
        return cls(**{**head, "vocabulary": Vocabulary.from_json(head["vocabulary"])})


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix on the model's device: indptr int64 [n + 1], indices int64 [m], weights float32 [m]."""

    indptr: Tensor
    indices: Tensor
    weights: Tensor

    def first(self, rows: int) -> "SparseRows":
        end = int(self.indptr[rows])
        return SparseRows(self.indptr[: rows + 1], self.indices[:end], self.weights[:end])

    def times(self, dense: Tensor) -> Tensor:
        return sparse_product(self.indptr, self.indices, self.weights, dense)

    def edge_index(self) -> Tensor:
        """torch-geometric's form, int64 [2, m]: who is heard, who hears."""
        counts = self.indptr.diff()
        rows = torch.arange(len(counts), device=counts.device)
        return torch.stack([self.indices, rows.repeat_interleave(counts, output_size=len(self.indices))])


@dataclass(frozen=True)
class Subgraph:
    """A mini-batch. rows int64 [n]: the seeds first, then hop by hop; reach: nodes within 0, 1, … hops.

    feature_rows int64 [u]: rows of the feature table that occur; bags: nodes x feature_rows;
    friends: nodes that hear x nodes, weighted as a symmetrically normalised sum; context float32 [n, CONTEXT].
    """

    rows: Tensor
    reach: tuple[int, ...]
    feature_rows: Tensor
    bags: SparseRows
    friends: SparseRows
    context: Tensor


class Encoder(nn.Module, ABC):
    """An inductive encoder with a table of features and a table of users. Parameters are drawn from torch's generator.

    A user's own vector is what they send to friends; no model may let it into their own embedding by another way, so
    that a new user embeds like any other. Every method but `forward` works on any block of rows.
    """

    feature_weights: Tensor

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.features = _unit_table(shape.vocabulary.rows, shape.hidden)
        self.vectors = _unit_table(min(max(1, shape.users), VECTOR_ROWS), shape.hidden)
        self.register_buffer("feature_weights", torch.zeros(shape.vocabulary.rows))

    @property
    def tables(self) -> list[Tensor]:
        """Parameters with sparse gradients: a mini-batch touches some rows of them."""
        return [self.features.weight, self.vectors.weight]

    @property
    def dense(self) -> list[Tensor]:
        """All other parameters."""
        return [p for p in self.parameters() if all(p is not table for table in self.tables)]

    def forward(self, batch: Subgraph) -> Tensor:
        """Unit embeddings of the seeds, float32 [seeds, D]."""
        profiles = self.profiles(batch.bags, batch.feature_rows)
        sent, known = self.messages(batch.rows, profiles), profiles
        seeds, levels = batch.reach[0], []
        for hop in range(len(batch.reach) - 1):
            listeners = batch.reach[-2 - hop]
            sent = known = self.hear(hop, known[:listeners], batch.friends.first(listeners), sent)
            levels.append(known[:seeds])
        return self.head(profiles[:seeds], levels, batch.context[:seeds]).float()

    def profiles(self, bags: SparseRows, feature_rows: Tensor) -> Tensor:
        """[n, hidden] of users from attributes and affiliations alone."""
        return bags.times(self.features(feature_rows))

    def own_vectors(self, rows: Tensor) -> Tensor:
        """[n, hidden]"""
        return self.vectors(rows % self.vectors.num_embeddings)

    @abstractmethod
    def messages(self, rows: Tensor, profiles: Tensor) -> Tensor:
        """[n, hidden] that users send at first."""

    @abstractmethod
    def hear(self, hop: int, known: Tensor, friends: SparseRows, sent: Tensor) -> Tensor:
        """[n, hidden] that n users know, and send on, once they heard their friends.

        known [n, hidden]: before; their profiles at hop 0. friends: n x senders. sent [senders, hidden].
        """

    @abstractmethod
    def head(self, profiles: Tensor, levels: list[Tensor], context: Tensor) -> Tensor:
        """Unit embeddings [n, D] from own profiles and what was known after 1, 2, … hops."""


def _unit_table(rows: int, width: int) -> nn.Embedding:
    """Random rows of norm about 1: nearly orthogonal, so that sums keep apart who contributed."""
    table = nn.Embedding(rows, width, sparse=True)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
