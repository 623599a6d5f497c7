"""GraphSAGE (Hamilton et al., NeurIPS 2017, algorithm 1, mean aggregator) with torch-geometric's SAGEConv.

The second encoder: what a team that knows torch-geometric would write first, and a pattern for a third. At first
everyone sends their profile plus a vector of their own, so that a graph without attributes can be told apart; after
that what they know. All levels are kept for the embedding (jumping knowledge, Xu et al., ICML 2018).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from gnn.model import CONTEXT, Encoder, EncoderShape, SparseRows


class GraphSage(Encoder):
    """See the module's text."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.convolutions = nn.ModuleList(SAGEConv(shape.hidden, shape.hidden) for _ in range(shape.layers))
        self.to_embedding = nn.Linear((shape.layers + 1) * shape.hidden + CONTEXT, shape.dimensions)

    def messages(self, rows: Tensor, profiles: Tensor) -> Tensor:
        return self.own_vectors(rows) + profiles

    def hear(self, hop: int, known: Tensor, friends: SparseRows, sent: Tensor) -> Tensor:
        size = (len(sent), len(known))
        heard = self.convolutions[hop]((sent, known), friends.edge_index(), size=size)  # [n, hidden]
        return F.normalize(F.leaky_relu(heard), eps=1e-8)

    def head(self, profiles: Tensor, levels: list[Tensor], context: Tensor) -> Tensor:
        known = torch.cat([F.normalize(profiles, eps=1e-8), *levels, context], dim=1)
        return F.normalize(self.to_embedding(known), eps=1e-8)
