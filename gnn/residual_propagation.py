"""ResidualPropagation, the default encoder: linear sums over friends beside the profile, weighed by how many there are.

It reads a user as (1) their own profile, (2) the people one hop away, (3) two hops away, and so on. A message is the
sender's profile plus a vector of their own; sums over friends are linear and symmetrically normalised, as in LightGCN
(He et al., SIGIR 2020), so the dot product of two users starts as a weighted count of short paths and shared
attributes, and training bends it from there. Nobody's own vector enters their own embedding other than through
friends: a user is who they know and where they belong, so a new user embeds like any other.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnn.model import CONTEXT, Encoder, EncoderShape, SparseRows


class ResidualPropagation(Encoder):
    """See the module's text."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        start = _orthogonal(shape.hidden, shape.dimensions)
        self.maps = nn.ModuleList(copy.deepcopy(start) for _ in range(shape.layers + 1))
        self.gates = nn.Sequential(nn.Linear(CONTEXT, 16), nn.ReLU(), nn.Linear(16, shape.layers + 1))
        self.profile_share = nn.Parameter(torch.zeros(1))

    def messages(self, rows: Tensor, profiles: Tensor) -> Tensor:
        return self.own_vectors(rows) + self.profile_share.exp() * profiles

    def hear(self, hop: int, known: Tensor, friends: SparseRows, sent: Tensor) -> Tensor:
        return friends.times(sent)

    def head(self, profiles: Tensor, levels: list[Tensor], context: Tensor) -> Tensor:
        heard = [F.normalize(level, eps=1e-8) for level in [profiles, *levels]]  # (layers + 1) x [n, hidden]
        gates = self.gates(context).softmax(dim=1)  # [n, layers + 1]
        mapped = torch.stack([to_embedding(one) for one, to_embedding in zip(heard, self.maps, strict=True)], dim=1)
        return F.normalize((gates.unsqueeze(2) * mapped).sum(1), eps=1e-8)


def _orthogonal(inputs: int, outputs: int) -> nn.Linear:
    """The map every hop starts from, so that at first hops are compared with each other as they are."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.orthogonal_(linear.weight)
    return linear
