"""A few users embed as they do among everybody, and who joined since by what is around them."""

import numpy as np
import pytest
import torch

from gnn.checkpoint import open_encoder, save_encoder
from gnn.embed import embed
from gnn.embed_some import embed_some
from gnn.models import MODELS
from infra.graph import Csr
from tests.gnn.test_models import train_model
from tests.suites.planted import planted_graph
from tests.suites.profiles import embed_profile


@pytest.fixture(scope="module")
def graph():
    return planted_graph()


@pytest.fixture(scope="module", params=list(MODELS))
def folder(request, graph, tmp_path_factory):
    trained = train_model(graph, request.param, steps=30)
    place = tmp_path_factory.mktemp("encoder")
    save_encoder(place, request.param, trained.encoder, trained.encoder.shape)
    return place


def test_users_of_the_encoders_graph_embed_as_among_everybody(graph, folder):
    rows = np.array([3, 50, 51, 239])
    some = embed_some(folder, graph, graph.now, rows, np.arange(graph.users))
    assert np.abs(some - embed(folder, graph, "now")[rows]).max() < 1e-6


def test_users_may_have_other_rows_than_those_they_were_trained_at(graph, folder):
    """As after others joined or left: the last half first."""
    turned = np.roll(np.arange(graph.users), 120)  # trained row of each row
    place = np.argsort(turned)
    friends = graph.now.connections
    owner = np.repeat(np.arange(graph.users), friends.degrees())
    moved = Csr.from_pairs(graph.users, place[owner], place[friends.indices])
    clubs = graph.now.affiliations
    view = type(graph.now)(
        moved, Csr(clubs.indptr, clubs.indices[turned], clubs.values[turned]), Csr.empty(graph.users, np.float32)
    )
    other = type(graph)(**{**vars(graph), "attribute_codes": graph.attribute_codes[:, turned]})
    rows = np.array([0, 100, 200])
    some = embed_some(folder, other, view, rows, turned)
    assert np.abs(some - embed(folder, graph, "now")[turned[rows]]).max() < 1e-5


def test_who_joined_without_friends_embeds_by_profile(graph, folder):
    wanted = np.flatnonzero(graph.attribute_codes[0] >= 0)[:2]
    friends = Csr.empty(graph.users, np.int32)
    view = type(graph.now)(friends, graph.now.affiliations, graph.now.interactions)
    trained = np.where(np.isin(np.arange(graph.users), wanted), -1, np.arange(graph.users))
    some = embed_some(folder, graph, view, wanted, trained)
    clubs = graph.now.affiliations
    own = Csr.from_pairs(2, np.arange(2), clubs.indices[wanted], clubs.values[wanted])
    alone = embed_profile(
        open_encoder(folder, torch.device("cpu")), graph.attribute_codes[:, wanted], own, graph.entity_kind
    )
    assert np.abs(some - alone).max() < 1e-6


def test_who_joined_embeds_near_those_they_befriended(graph, folder):
    """Their own row of the encoder's vectors plays no part, as there is none."""
    row = 6  # of community 0
    joined = np.arange(graph.users)
    joined[row] = -1
    everybody = embed(folder, graph, "now")
    some = embed_some(folder, graph, graph.now, np.array([row]), joined)[0]
    community = np.arange(graph.users) % 6
    nearest = np.argsort(-(everybody @ some))[:20]
    assert (community[nearest] == 0).mean() > 0.8
    assert abs(np.linalg.norm(some) - 1) < 1e-5
