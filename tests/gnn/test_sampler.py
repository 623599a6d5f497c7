"""Promises of the neighbour sampler."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import EdgeSamplerInput, NodeSamplerInput

from gnn.sampler import CsrSampler, Share
from infra.graph import Csr
from tests.suites.planted import planted_graph

CONNECTIONS = planted_graph().past.connections
DEGREES = CONNECTIONS.degrees()


def dense() -> np.ndarray:
    matrix = np.zeros((CONNECTIONS.rows, CONNECTIONS.rows), bool)
    matrix[np.repeat(np.arange(CONNECTIONS.rows), DEGREES), CONNECTIONS.indices] = True
    return matrix


def pairs(count: int) -> torch.Tensor:
    row = np.repeat(np.arange(CONNECTIONS.rows), DEGREES)
    forward = np.flatnonzero(row < CONNECTIONS.indices)[:: max(1, CONNECTIONS.entries // 2 // count)][:count]
    return torch.from_numpy(np.stack([row[forward], CONNECTIONS.indices[forward].astype(np.int64)]))


def sampled(fanouts=(5, 3), hard_negatives=False, seed=1):
    torch.manual_seed(seed)
    data = Data(num_nodes=CONNECTIONS.rows, edge_index=torch.empty(2, 0, dtype=torch.int64))
    sampler = CsrSampler(CONNECTIONS, fanouts, hard_negatives)
    return list(LinkLoader(data, sampler, edge_label_index=pairs(64), batch_size=16))


def test_every_sampled_edge_is_a_friendship_and_points_at_its_entry():
    matrix = dense()
    for batch in sampled():
        sender, listener = batch.n_id[batch.edge_index].numpy()
        assert matrix[sender, listener].all()
        assert (CONNECTIONS.indices[batch.e_id.numpy()] == sender).all()


def test_seed_friendships_and_their_reverses_carry_no_message():
    for batch in sampled(fanouts=(-1, -1)):
        first, second = batch.n_id[batch.edge_label_index].numpy()
        hidden = set(zip(first, second, strict=True)) | set(zip(second, first, strict=True))
        sender, listener = batch.n_id[batch.edge_index].numpy()
        assert not hidden & set(zip(sender, listener, strict=True))


def test_all_other_friendships_of_the_seeds_do():
    batch = sampled(fanouts=(-1,))[0]
    seeds = batch.num_sampled_nodes[0]
    heard = np.bincount(batch.edge_index[1].numpy(), minlength=seeds)
    hidden = np.bincount(batch.edge_label_index.numpy().reshape(-1), minlength=seeds)
    assert (heard == DEGREES[batch.n_id[:seeds].numpy()] - hidden).all()


def test_a_node_hears_at_most_fanout_distinct_friends_and_all_of_them_where_few():
    torch.manual_seed(2)
    seeds = torch.arange(CONNECTIONS.rows)
    out = CsrSampler(CONNECTIONS, [4]).sample_from_nodes(NodeSamplerInput(None, seeds))
    assert len(np.unique(out.edge.numpy())) == len(out.edge)
    assert (np.bincount(out.col.numpy(), minlength=len(seeds)) == np.minimum(DEGREES, 4)).all()


def test_friends_are_drawn_with_equal_chance():
    node = int(np.argmax(DEGREES))
    sampler = CsrSampler(CONNECTIONS, [7])
    torch.manual_seed(3)
    rounds = 4000
    drawn = np.concatenate(
        [sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor([node]))).edge.numpy() for _ in range(rounds)]
    )
    counts = np.bincount(drawn - CONNECTIONS.indptr[node], minlength=DEGREES[node])
    expected = rounds * 7 / DEGREES[node]
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_the_layout_is_seeds_first_then_hop_by_hop_with_listeners_ascending():
    for batch in sampled():
        listener = batch.edge_index[1].numpy()
        assert (np.diff(listener) >= 0).all()
        assert sum(batch.num_sampled_nodes) == len(batch.n_id) == len(torch.unique(batch.n_id))
        assert sum(batch.num_sampled_edges) == batch.edge_index.shape[1]
        assert listener.max() < sum(batch.num_sampled_nodes[:-1])


def test_torchs_seed_fixes_the_draws():
    one, again, other = sampled(seed=4), sampled(seed=4), sampled(seed=5)
    assert all(
        torch.equal(a.edge_index, b.edge_index) and torch.equal(a.n_id, b.n_id) for a, b in zip(one, again, strict=True)
    )
    assert any(a.n_id.tolist() != b.n_id.tolist() for a, b in zip(one, other, strict=True))


def test_hard_negatives_are_friends_of_friends_and_no_friends():
    matrix = dense()
    two_hops = (matrix.astype(int) @ matrix.astype(int)) > 0
    for batch in sampled(hard_negatives=True):
        first, second = batch.n_id[batch.edge_label_index].numpy()
        negative = batch.edge_label.numpy() == 0
        assert negative.sum() == (~negative).sum()
        assert matrix[first[~negative], second[~negative]].all()
        assert not matrix[first[negative], second[negative]].any()
        assert two_hops[first[negative], second[negative]].all()
        assert (first[negative] == first[~negative]).all()
        assert (first != second).all()


def test_a_node_loader_reads_users_in_order():
    torch.manual_seed(6)
    data = Data(num_nodes=CONNECTIONS.rows, edge_index=torch.empty(2, 0, dtype=torch.int64))
    batches = list(NodeLoader(data, CsrSampler(CONNECTIONS, [3]), batch_size=100))
    assert torch.equal(torch.cat([b.n_id[: b.batch_size] for b in batches]), torch.arange(CONNECTIONS.rows))


def test_a_seed_twice_stays_twice():
    torch.manual_seed(7)
    out = CsrSampler(CONNECTIONS, [-1]).sample_from_nodes(NodeSamplerInput(None, torch.tensor([3, 3])))
    assert out.node[:2].tolist() == [3, 3]
    assert (np.bincount(out.col.numpy()) == DEGREES[3]).all()


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_two_users_who_only_know_each_other_hear_nothing(hard_negatives):
    csr = Csr.from_pairs(2, np.array([0, 1]), np.array([1, 0]))
    out = CsrSampler(csr, [5, 5], hard_negatives).sample_from_edges(
        EdgeSamplerInput(None, torch.tensor([0]), torch.tensor([1]))
    )
    assert len(out.edge) == 0
    assert out.node.tolist() == [0, 1]


def heard_by(out):
    """node -> who it hears, of every node that was asked for its friends."""
    node = out.node.numpy()
    listening = node[: sum(out.num_sampled_nodes[:-1])]
    heard = {int(n): set() for n in listening}
    for sender, listener in zip(node[out.row.numpy()], node[out.col.numpy()], strict=True):
        heard[int(listener)].add(int(sender))
    return heard


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_a_mini_batch_hear_what_the_whole_hears_and_add_up_to_it(processes):
    def sampled_share(share):
        torch.manual_seed(11)
        sampler = CsrSampler(CONNECTIONS, (5, 3), hard_negatives=True, lonely_share=0.3, share=share)
        first, second = pairs(70)
        return sampler.sample_from_edges(EdgeSamplerInput(None, first, second))

    whole = sampled_share(None)
    everyone, friends = heard_by(whole), dict(zip(whole.node.tolist(), whole.friends.tolist(), strict=True))
    users_pairs = []
    for rank in range(processes):
        own = sampled_share(Share(rank, processes, 16))
        for node, heard in heard_by(own).items():
            assert heard == everyone[node]
        for node, count in zip(own.node.tolist(), own.friends.tolist(), strict=True):
            assert count == friends[node]
        users_pairs += own.node[own.metadata[1]].T.tolist()
    assert sorted(users_pairs) == sorted(whole.node[whole.metadata[1]].T.tolist())


def test_groups_are_never_cut_and_every_friendship_is_in_one_share():
    for friendships in (1, 15, 16, 17, 100, 1024):
        for processes in (1, 2, 3, 5):
            shares = [Share(rank, processes, 16).of(friendships) for rank in range(processes)]
            taken = [i for share in shares for i in range(share.start, share.stop)]
            assert taken == list(range(friendships))
            assert all(share.start % 16 == 0 for share in shares if share.start < share.stop)


def test_lonely_users_count_no_friends_and_others_all_but_the_hidden():
    torch.manual_seed(12)
    sampler = CsrSampler(CONNECTIONS, (5, 3), lonely_share=0.3)
    first, second = pairs(64)
    out = sampler.sample_from_edges(EdgeSamplerInput(None, first, second))
    node, seeds = out.node.numpy(), out.num_sampled_nodes[0]
    hidden = np.bincount(np.concatenate([first, second]), minlength=CONNECTIONS.rows)
    expected = (DEGREES - hidden)[node]
    lonely = out.friends.numpy() != expected
    assert (out.friends.numpy()[lonely] == 0).all()
    assert not lonely[seeds:].any()
    assert 0.1 < lonely[:seeds].mean() < 0.5
