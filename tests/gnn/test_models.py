"""What every encoder promises, whichever model it is."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.sampler import NodeSamplerInput

from gnn.batches import subgraph
from gnn.checkpoint import hash_tensors, open_encoder, save_encoder
from gnn.embed import embed_rows
from gnn.model import Subgraph
from gnn.models import MODELS
from gnn.runtime import prepare
from gnn.sampler import CsrSampler
from gnn.train import train
from infra.graph import Csr
from infra.settings import EncoderSettings
from tests.gnn.test_encoder import held_out_auc, inputs_of
from tests.suites.planted import planted_graph
from tests.suites.profiles import embed_profile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def graph():
    return planted_graph()


@pytest.fixture(scope="module", params=list(MODELS))
def trained(request, graph):
    return train_model(graph, request.param)


def train_model(graph, model, steps=60):
    prepare(threads=1, seed=17)
    settings = EncoderSettings(model=model, dimensions=32, hidden=32, max_steps=steps, batch_size=256, fanout=8)
    return train(graph, settings, 17, lambda line: None)


def whole_batch(inputs) -> Subgraph:
    """Everyone as one mini-batch that hears all friends."""
    everyone = torch.arange(inputs.users)
    out = CsrSampler(inputs.connections, [-1, -1]).sample_from_nodes(NodeSamplerInput(None, everyone))
    data = Data(
        n_id=out.node,
        edge_index=torch.stack([out.row, out.col]),
        friends=torch.from_numpy(inputs.degrees[out.node.numpy()].astype(np.float32)),
    )
    data.num_sampled_nodes = out.num_sampled_nodes
    return subgraph(inputs, data, CPU)


def test_withheld_friendships_rank_far_above_chance(graph, trained):
    embedded = embed_rows(trained.encoder, inputs_of(trained.encoder, graph))
    assert held_out_auc(graph, embedded @ embedded.T) > 0.8


def test_layer_wise_embedding_equals_a_mini_batch_with_full_fanout(graph, trained, monkeypatch):
    inputs = inputs_of(trained.encoder, graph)
    with torch.no_grad():
        batch = trained.encoder(whole_batch(inputs)).numpy()
    assert np.abs(embed_rows(trained.encoder, inputs) - batch).max() < 1e-5
    monkeypatch.setattr("gnn.embed.BLOCK", 37)
    monkeypatch.setattr("gnn.embed.BLOCK_FRIENDS", 400)
    assert np.abs(embed_rows(trained.encoder, inputs) - batch).max() < 1e-5


def test_a_new_user_embeds_near_their_community(graph, trained):
    past = embed_rows(trained.encoder, inputs_of(trained.encoder, graph))
    community = np.arange(graph.users) % 6
    for wanted in range(6):
        clubs = Csr.from_pairs(1, np.array([0]), np.array([wanted]), np.ones(1, np.float32))
        new = embed_profile(trained.encoder, np.array([[wanted], [-1]], np.int32), clubs, graph.entity_kind)
        nearest = np.argsort(-(past @ new[0]))[:20]
        assert (community[nearest] == wanted).mean() > 0.8


def test_who_has_no_friends_does_not_depend_on_anyones_own_vector(graph, trained):
    """Others do: theirs is what they send."""
    inputs = inputs_of(trained.encoder, graph)
    row = np.repeat(np.arange(graph.users), inputs.degrees)
    others = (row > 0) & (inputs.connections.indices > 0)
    rest = Csr.from_pairs(graph.users, row[others], inputs.connections.indices[others])
    lonely = type(inputs)(rest, inputs.bags, rest.degrees(), inputs.affiliation_counts, inputs.attributes_known)
    before = embed_rows(trained.encoder, lonely)
    kept = trained.encoder.vectors.weight.detach().clone()
    with torch.no_grad():
        trained.encoder.vectors.weight.neg_()
        moved = np.abs(embed_rows(trained.encoder, lonely) - before).max(1)
        trained.encoder.vectors.weight.copy_(kept)
    assert moved[0] == 0
    assert (moved[1:] > 0).all()


def test_two_runs_have_the_same_weights(graph):
    one, two = (train_model(graph, "graph_sage", steps=6) for _ in range(2))
    assert hash_tensors(one.encoder.state_dict()) == hash_tensors(two.encoder.state_dict())


def test_a_saved_encoder_is_the_model_that_it_was(graph, trained, tmp_path):
    save_encoder(tmp_path, trained.metrics["model"], trained.encoder, trained.encoder.shape)
    opened = open_encoder(tmp_path, CPU)
    assert type(opened) is type(trained.encoder)
    inputs = inputs_of(trained.encoder, graph)
    assert np.array_equal(embed_rows(opened, inputs), embed_rows(trained.encoder, inputs))


def test_mixed_precision_runs_and_stays_near_float32(graph, trained):
    """On the CPU here; training uses it on a GPU alone."""
    batch = whole_batch(inputs_of(trained.encoder, graph))
    whole = trained.encoder(batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = trained.encoder(batch)
    assert mixed.dtype == torch.float32
    assert (mixed - whole).abs().max() < 0.05
    mixed.sum().backward()
    assert trained.encoder.vectors.weight.grad.is_sparse
    trained.encoder.zero_grad()
