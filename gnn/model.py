"""The encoder: a protocol, and the model behind it.

ResidualPropagation reads a user as (1) their own profile, (2) the people one hop away, (3) two hops away, and so on.
A message is the sender's profile plus a vector of their own; sums over friends are linear and symmetrically
normalised, as in LightGCN (He et al., SIGIR 2020), so the dot product of two users starts as a weighted count of
short paths and shared attributes, and training bends it from there. Nobody's own vector enters their own embedding
other than through friends: a user is who they know and where they belong, so a new user embeds like any other.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Subgraph:
    """A mini-batch. rows int64 [n]: the seeds first, then hop by hop; reach: nodes within 0, 1, … hops.

    feature_rows int64 [u]: rows of the feature table that occur; bags: nodes x feature_rows;
    friends: nodes that hear x nodes; context float32 [n, CONTEXT].
    """

    rows: Tensor
    reach: tuple[int, ...]
    feature_rows: Tensor
    bags: SparseRows
    friends: SparseRows
    context: Tensor


class Encoder(Protocol):
    """What training and embedding ask of a model. Everything but `forward` works on any block of rows."""

    shape: EncoderShape
    feature_weights: Tensor

    def forward(self, batch: Subgraph) -> Tensor:
        """Unit embeddings of the seeds, float32 [seeds, D]."""
        ...

    def profiles(self, bags: SparseRows, feature_rows: Tensor) -> Tensor:
        """[n, hidden] of users from attributes and affiliations alone."""
        ...

    def messages(self, rows: Tensor, profiles: Tensor) -> Tensor:
        """[n, hidden] that users send."""
        ...

    def head(self, profiles: Tensor, levels: list[Tensor], context: Tensor) -> Tensor:
        """Unit embeddings [n, D] from own profiles and the sums heard from 1, 2, … hops away."""
        ...


class ResidualPropagation(nn.Module):
    """See the module's text. Parameters are drawn from torch's generator."""

    feature_weights: Tensor

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, width = shape.hidden, shape.dimensions
        self.features = _unit_table(shape.vocabulary.rows, hidden)
        self.vectors = _unit_table(min(max(1, shape.users), VECTOR_ROWS), hidden)
        start = _orthogonal(hidden, width)
        self.maps = nn.ModuleList(copy.deepcopy(start) for _ in range(shape.layers + 1))
        self.gates = nn.Sequential(nn.Linear(CONTEXT, 16), nn.ReLU(), nn.Linear(16, shape.layers + 1))
        self.profile_share = nn.Parameter(torch.zeros(1))
        self.register_buffer("feature_weights", torch.zeros(shape.vocabulary.rows))

    def forward(self, batch: Subgraph) -> Tensor:
        profiles = self.profiles(batch.bags, batch.feature_rows)
        level = self.messages(batch.rows, profiles)
        seeds, levels = batch.reach[0], []
        for hop in range(1, len(batch.reach)):
            level = batch.friends.first(batch.reach[-1 - hop]).times(level)
            levels.append(level[:seeds])
        return self.head(profiles[:seeds], levels, batch.context[:seeds])

    def profiles(self, bags: SparseRows, feature_rows: Tensor) -> Tensor:
        return bags.times(self.features(feature_rows))

    def messages(self, rows: Tensor, profiles: Tensor) -> Tensor:
        return self.vectors(rows % self.vectors.num_embeddings) + self.profile_share.exp() * profiles

    def head(self, profiles: Tensor, levels: list[Tensor], context: Tensor) -> Tensor:
        heard = [F.normalize(level, eps=1e-8) for level in [profiles, *levels]]  # (layers + 1) x [n, hidden]
        gates = self.gates(context).softmax(dim=1)  # [n, layers + 1]
        mapped = torch.stack([to_embedding(one) for one, to_embedding in zip(heard, self.maps, strict=True)], dim=1)
        return F.normalize((gates.unsqueeze(2) * mapped).sum(1), eps=1e-8)


MODELS = {"residual_propagation": ResidualPropagation}


def _unit_table(rows: int, width: int) -> nn.Embedding:
    """Random rows of norm about 1: nearly orthogonal, so that sums keep apart who contributed."""
    table = nn.Embedding(rows, width, sparse=True)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table


def _orthogonal(inputs: int, outputs: int) -> nn.Linear:
    """The map every hop starts from, so that at first hops are compared with each other as they are."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.orthogonal_(linear.weight)
    return linear
