"""From what a loader samples, or a block of rows, to the tensors an encoder reads."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import Data
from torch_geometric.loader import LinkLoader

from gnn.inputs import Inputs
from gnn.model import SparseRows, Subgraph
from gnn.sampler import CsrSampler, Heard
from infra.graph import Int64


class FriendshipLoader(LinkLoader):
    """Mini-batches of friendships in the given order, each with the messages that reach them.

    A batch is torch-geometric's, and `friends` float32 [n] of gnn.sampler.Heard.
    """

    def __init__(self, sampler: CsrSampler, pairs: Int64, batch_size: int) -> None:
        """pairs int64 [2, M]."""
        data = Data(num_nodes=sampler.connections.rows, edge_index=torch.empty(2, 0, dtype=torch.int64))
        super().__init__(data, sampler, edge_label_index=torch.from_numpy(pairs), batch_size=batch_size)

    def filter_fn(self, out: Heard) -> Data:
        data = super().filter_fn(out)
        data.friends = out.friends
        return data


def subgraph(inputs: Inputs, data: Data, device: torch.device) -> Subgraph:
    """The sampled messages with what the nodes bring along; a hidden friendship does not count as a friend."""
    rows, friends = data.n_id.numpy(), data.friends.numpy()
    reach = np.cumsum(data.num_sampled_nodes)
    bags, feature_rows = compact_bags(inputs, rows, device)
    return Subgraph(
        rows=data.n_id.to(device),
        reach=tuple(reach.tolist()),
        feature_rows=feature_rows,
        bags=bags,
        friends=_sampled_friends(data, friends[: reach[-2]], inputs.degrees[rows], device),
        context=torch.from_numpy(inputs.context(rows, friends)).to(device),
    )


def _sampled_friends(
    data: Data, listening: npt.NDArray[np.float32], degrees: Int64, device: torch.device
) -> SparseRows:
    """Sampled edges, weighted so that their sum estimates the symmetrically normalised sum over all friends.

    listening float32 [listeners]: friends they have to hear; degrees int64 [n]: friends of every node.
    """
    sender, listener = data.edge_index.numpy()
    hearing = listening[listener] > 0
    sender, listener = sender[hearing], listener[hearing]
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
