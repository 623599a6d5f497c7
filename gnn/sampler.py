"""Neighbour sampling over a Csr for torch-geometric's loaders, without pyg-lib or torch-sparse.

`CsrSampler` goes where a NeighborSampler would: `LinkLoader(data, link_sampler=CsrSampler(...))` to train on
friendships, `NodeLoader(data, node_sampler=CsrSampler(...))` to look at users. Friendships that are the target of a
mini-batch are hidden from its messages in both directions; otherwise the model would only learn to read them off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch_geometric.sampler import (
    BaseSampler,
    EdgeSamplerInput,
    NegativeSampling,
    NodeSamplerInput,
    SamplerOutput,
)
from torch_geometric.sampler.neighbor_sampler import edge_sample, node_sample

from gnn.kernels import draw_hard_negatives, drawn_nodes, sample_hops
from infra.graph import Csr, Int64


@dataclass(frozen=True)
class Share:
    """What process `rank` of `processes` takes of every mini-batch: whole groups of `group` friendships, in order."""

    rank: int
    processes: int
    group: int

    def of(self, friendships: int) -> slice:
        """Positions of a mini-batch of so many friendships; empty where there are fewer groups than processes."""
        groups = -(-friendships // self.group)
        first, end = (groups * rank // self.processes * self.group for rank in (self.rank, self.rank + 1))
        return slice(first, min(end, friendships))


@dataclass
class Heard(SamplerOutput):
    """What was sampled, and friends float32 [n]: of each node, how many friendships count: none that is hidden."""

    friends: Tensor | None = None


class CsrSampler(BaseSampler):
    """Uniform neighbours without replacement from a symmetric Csr, hop by hop.

    fanouts: neighbours of a node in each hop, -1 for all; users of the seed friendships are heard by the first of
    them wherever they are met. hard_negatives: for each seed friendship's first user one friend of a friend is added
    as a pair with label 0 (`edge_label`). lonely_share: of the users of seed friendships, who hear nobody, as if they
    had just joined. share: the part of a mini-batch that is sampled; what it hears is what it would hear in the whole.
    Draws follow torch's generator: `torch.manual_seed` fixes them.
    """

    def __init__(
        self,
        connections: Csr,
        fanouts: Sequence[int],
        hard_negatives: bool = False,
        lonely_share: float = 0.0,
        share: Share | None = None,
    ) -> None:
        self.connections = connections
        self.fanouts = np.asarray(fanouts, np.int64)
        self.hard_negatives, self.lonely_share, self.share = hard_negatives, lonely_share, share
        self._indptr = np.asarray(connections.indptr)
        self._indices = np.asarray(connections.indices)
        self._local = np.full(connections.rows, -1, np.int32)
        self._is_target = np.zeros(connections.rows, np.uint8)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: object) -> SamplerOutput:
        """Messages that reach the given users; nothing is hidden."""
        none = np.empty(0, np.int64)
        key = _draw_key()
        return node_sample(index, lambda seed, _time: self._sample(seed, none, none, key))

    def sample_from_edges(self, index: EdgeSamplerInput, neg_sampling: NegativeSampling | None = None) -> SamplerOutput:
        """Messages that reach both users of each given friendship, which itself carries none."""
        first, second = index.row.numpy(), index.col.numpy()
        hidden = edge_keys(first, second, self.connections.rows)
        negative = self._hard_negatives(first)
        targets = np.unique(np.concatenate([first, second, negative]))
        key, lonely_key = _draw_key(), _draw_key()
        out: Heard = edge_sample(
            self._own(index, negative),
            lambda seed, _time: self._sample(seed, targets, hidden, key),
            self.connections.rows,
            disjoint=False,
            neg_sampling=neg_sampling,
        )
        lonely = drawn_nodes(targets, lonely_key, self.lonely_share)
        out.friends = torch.from_numpy(self._friends(out.node.numpy(), targets, hidden, lonely))
        return out

    def _hard_negatives(self, users: Int64) -> Int64:
        if not self.hard_negatives:
            return np.empty(0, np.int64)
        return draw_hard_negatives(self._indptr, self._indices, users, _draw_key())

    def _own(self, index: EdgeSamplerInput, negative: Int64) -> EdgeSamplerInput:
        """This process's share of the friendships, label 1, and of the hard negatives behind them, label 0."""
        own = self.share.of(len(index.row)) if self.share else slice(None)
        pairs = EdgeSamplerInput(
            None if index.input_id is None else index.input_id[own],
            index.row[own],
            index.col[own],
            None if index.label is None else index.label[own],
        )
        if not self.hard_negatives:
            return pairs
        added = torch.from_numpy(negative[own])
        return EdgeSamplerInput(
            input_id=pairs.input_id,
            row=torch.cat([pairs.row, pairs.row]),
            col=torch.cat([pairs.col, added]),
            label=torch.cat([torch.ones(len(pairs.row)), torch.zeros(len(added))]),
        )

    def _friends(
        self, nodes: Int64, targets: Int64, hidden: Int64, lonely: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Friends of each node, less those hidden from a target and none of a lonely one: float32 [n].

        targets ascending; lonely bool [targets].
        """
        users = self.connections.rows
        ends = np.concatenate([hidden // users, hidden % users])
        gone = np.bincount(np.searchsorted(targets, ends), minlength=len(targets))
        friends = self._indptr[nodes + 1] - self._indptr[nodes]
        at = np.searchsorted(targets, nodes)
        found = np.flatnonzero(np.append(targets, -1)[at] == nodes)
        at = at[found]
        friends[found] = np.where(lonely[at], 0, friends[found] - gone[at])
        return np.maximum(friends, 0).astype(np.float32)

    def _sample(self, seed: Tensor, targets: Int64, hidden: Int64, key: np.uint64) -> Heard:
        node, row, col, edge, nodes_a_hop, edges_a_hop = sample_hops(
            self._indptr,
            self._indices,
            seed.numpy(),
            targets,
            self.fanouts,
            key,
            hidden,
            self._is_target,
            self._local,
        )
        return Heard(
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
