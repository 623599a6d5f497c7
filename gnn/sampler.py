"""Neighbour sampling over a Csr for torch-geometric's loaders, without pyg-lib or torch-sparse.

`CsrSampler` goes where a NeighborSampler would: `LinkLoader(data, link_sampler=CsrSampler(...))` to train on
friendships, `NodeLoader(data, node_sampler=CsrSampler(...))` to look at users. Friendships that are the target of a
mini-batch are hidden from its messages in both directions; otherwise the model would only learn to read them off.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    NegativeSampling,
    NodeSamplerInput,
    SamplerOutput,
)
from torch_geometric.sampler.neighbor_sampler import edge_sample, node_sample

from gnn.kernels import draw_hard_negatives, sample_hops
from infra.graph import Csr, Int64


class CsrSampler(BaseSampler):
    """Uniform neighbours without replacement from a symmetric Csr, hop by hop.

    fanouts: neighbours of a node in each hop, -1 for all. hard_negatives: for how many of the seed friendships'
    first users one friend of a friend is added as a pair with label 0 (`edge_label`), 0 or 1 a friendship.
    Draws follow torch's generator: `torch.manual_seed` fixes them.
    """

    def __init__(self, connections: Csr, fanouts: Sequence[int], hard_negatives: bool = False) -> None:
        self.connections = connections
        self.fanouts = np.asarray(fanouts, np.int64)
        self.hard_negatives = hard_negatives
        self._indptr = np.asarray(connections.indptr)
        self._indices = np.asarray(connections.indices)
        self._local = np.full(connections.rows, -1, np.int32)
        self._is_seed = np.zeros(connections.rows, np.uint8)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: object) -> SamplerOutput:
        """Messages that reach the given users; nothing is hidden."""
        hidden = np.empty(0, np.int64)
        return node_sample(index, lambda seed, _time: self._sample(seed, hidden))

    def sample_from_edges(self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None) -> SamplerOutput:
        """Messages that reach both users of each given friendship, which itself carries none."""
        hidden = edge_keys(index.row.numpy(), index.col.numpy(), self.connections.rows)
        if self.hard_negatives:
            index = self._with_hard_negatives(index)
        return edge_sample(
            index,
            lambda seed, _time: self._sample(seed, hidden),
            self.connections.rows,
            disjoint=False,
            neg_sampling=neg_sampling,
        )

    def _with_hard_negatives(self, index: EdgeSamplerInput) -> EdgeSamplerInput:
        """Appends (user, a friend's friend who is not a friend) pairs, label 0, to pairs that get label 1."""
        negative = draw_hard_negatives(self._indptr, self._indices, index.row.numpy(), _draw_key())
        return EdgeSamplerInput(
            input_id=index.input_id,
            row=torch.cat([index.row, index.row]),
            col=torch.cat([index.col, torch.from_numpy(negative)]),
            label=torch.cat([torch.ones(len(index.row)), torch.zeros(len(negative))]),
        )

    def _sample(self, seed: torch.Tensor, hidden: Int64) -> SamplerOutput:
        node, row, col, edge, nodes_a_hop, edges_a_hop = sample_hops(
            self._indptr,
            self._indices,
            seed.numpy(),
            self.fanouts,
            _draw_key(),
            hidden,
            self._is_seed,
            self._local,
        )
        return SamplerOutput(
            node=torch.from_numpy(node),
            row=torch.from_numpy(row),
            col=torch.from_numpy(col),
            edge=torch.from_numpy(edge),
            num_sampled_nodes=nodes_a_hop.tolist(),
            num_sampled_edges=edges_a_hop.tolist(),
        )


def edge_keys(first: Int64, second: Int64, rows: int) -> Int64:
    """One sorted int64 key for each undirected pair, the same in both directions."""
    return np.unique(np.minimum(first, second) * np.int64(rows) + np.maximum(first, second))


def _draw_key() -> np.uint64:
    return np.uint64(int(torch.randint(2**62, (), dtype=torch.int64)))
