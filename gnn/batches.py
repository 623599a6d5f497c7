"""From what a loader samples, or a block of rows, to the tensors an encoder reads."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import Data
from torch_geometric.loader import LinkLoader

from gnn.inputs import Inputs
from gnn.model import SparseRows, Subgraph
from gnn.sampler import CsrSampler
from infra.graph import Int64


def link_batches(sampler: CsrSampler, pairs: Int64, batch_size: int) -> Iterator[Data]:
    """Mini-batches of friendships [2, M] in the given order, each with the messages that reach them."""
    users = sampler.connections.rows
    data = Data(num_nodes=users, edge_index=torch.empty(2, 0, dtype=torch.int64))
    return iter(LinkLoader(data, sampler, edge_label_index=torch.from_numpy(pairs), batch_size=batch_size))


def subgraph(inputs: Inputs, data: Data, lonely: npt.NDArray[np.bool_], device: torch.device) -> Subgraph:
    """The sampled messages with what the nodes bring along; a hidden friendship does not count as a friend.

    lonely bool [seeds]: these seeds hear nobody, as if they had just joined.
    """
    rows = data.n_id.numpy()
    degrees = inputs.degrees[rows].astype(np.float32)
    degrees[: len(lonely)] = np.where(lonely, 0, np.maximum(degrees[: len(lonely)] - _hidden_friends(data), 0))
    reach = np.cumsum(data.num_sampled_nodes)
    bags, feature_rows = compact_bags(inputs, rows, device)
    return Subgraph(
        rows=data.n_id.to(device),
        reach=tuple(reach.tolist()),
        feature_rows=feature_rows,
        bags=bags,
        friends=_sampled_friends(data, degrees[: reach[-2]], inputs.degrees[rows], device),
        context=torch.from_numpy(inputs.context(rows, degrees)).to(device),
    )


def _hidden_friends(data: Data) -> npt.NDArray[np.int64]:
    """How many of each seed's friendships are targets of the batch and so hidden."""
    seeds = data.num_sampled_nodes[0]
    pairs = data.edge_label_index.numpy()
    if data.edge_label is not None:
        pairs = pairs[:, data.edge_label.numpy() > 0]
    distinct = np.unique(np.sort(pairs, axis=0), axis=1)
    return np.bincount(distinct.reshape(-1), minlength=seeds)


def _sampled_friends(
    data: Data, listening: npt.NDArray[np.float32], degrees: Int64, device: torch.device
) -> SparseRows:
    """Sampled edges, weighted so that their sum estimates the symmetrically normalised sum over all friends.

    listening float32 [listeners]: friends they have to hear; degrees int64 [n]: friends of every node.
    """
    sender, listener = data.edge_index.numpy()
    heard = np.bincount(listener, minlength=len(listening))
    scale = np.sqrt(listening) / np.maximum(heard, 1)
    weights = scale[listener] / np.sqrt(np.maximum(degrees[sender], 1))
    indptr = np.zeros(len(listening) + 1, np.int64)
    np.cumsum(heard, out=indptr[1:])
    return sparse_rows(indptr, sender, weights, device)


def whole_friends(inputs: Inputs, start: int, end: int, device: torch.device) -> SparseRows:
    """All friends of rows start .. end - 1, symmetrically normalised: D^-1/2 A D^-1/2."""
    indptr = np.asarray(inputs.connections.indptr[start : end + 1])
    friends = np.asarray(inputs.connections.indices[indptr[0] : indptr[-1]])
    degrees = np.maximum(inputs.degrees, 1).astype(np.float32)
    listeners = np.repeat(degrees[start:end], np.diff(indptr))
    return sparse_rows(indptr - indptr[0], friends, 1 / np.sqrt(listeners * degrees[friends]), device)


def compact_bags(inputs: Inputs, rows: Int64, device: torch.device) -> tuple[SparseRows, torch.Tensor]:
    """Bags of some rows over the feature rows that occur in them, and those feature rows, ascending."""
    starts, ends = inputs.bags.indptr[rows], inputs.bags.indptr[rows + 1]
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(ends - starts, out=indptr[1:])
    entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], ends - starts)
    occurring, compact = _compacted(inputs.bags.indices[entries])
    assert inputs.bags.values is not None
    return (
        sparse_rows(indptr, compact, inputs.bags.values[entries], device),
        torch.from_numpy(occurring).to(device),
    )


def _compacted(values: npt.NDArray[np.int32]) -> tuple[Int64, Int64]:
    """np.unique(values, return_inverse=True) without a sort."""
    seen = np.zeros(int(values.max()) + 1 if len(values) else 0, bool)
    seen[values] = True
    occurring = np.flatnonzero(seen)
    rank = np.cumsum(seen) - 1
    return occurring, rank[values]


def sparse_rows(
    indptr: Int64, indices: npt.NDArray[Any], weights: npt.NDArray[Any], device: torch.device
) -> SparseRows:
    return SparseRows(
        torch.from_numpy(np.ascontiguousarray(indptr, np.int64)).to(device),
        torch.from_numpy(np.ascontiguousarray(indices, np.int64)).to(device),
        torch.from_numpy(np.ascontiguousarray(weights, np.float32)).to(device),
    )
