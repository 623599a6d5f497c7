"""Two towers: newcomers' friends are found by profile alone, and what is saved scores as what was trained."""

import numpy as np
import pytest
import torch

from gnn import two_tower
from gnn.runtime import prepare
from gnn.two_tower import Bags, TrainedTowers, feature_bags
from infra.graph import Graph
from jobs.newcomer_lists import choose_newcomers
from jobs.newcomer_towers import learn_towers
from tests.lookup_api.ranking.networks import small_graph

SEED = 3


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph(600)


@pytest.fixture(scope="module")
def towers(graph: Graph) -> TrainedTowers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_tower, "BATCH", 256)
        return learn_towers(graph, SEED)


def test_friends_of_newcomers_are_nearer_than_others(graph: Graph, towers: TrainedTowers) -> None:
    """Mean area under the ROC curve over those whose friendships the towers never saw."""
    viewers, shown = towers.vectors(graph, "past")
    areas = []
    for user in choose_newcomers(graph, SEED):
        scores = shown @ viewers[user]
        friends = graph.past.connections.row(int(user))
        others = np.setdiff1d(np.arange(graph.users), [user, *friends])
        areas.append((scores[friends][:, None] > scores[others]).mean())
    assert np.mean(areas) > 0.65
    assert min(towers.metrics["losses"]) < 0.95 * towers.metrics["losses"][0]


def test_saved_vectors_score_as_the_model_does(graph: Graph, towers: TrainedTowers) -> None:
    users, zero = np.arange(graph.users), np.zeros(graph.users, np.int64)
    codes = np.asarray(graph.attribute_codes)
    kept = (graph.past.affiliations, graph.entity_kind, zero)
    bags = Bags.of(feature_bags(towers.vocabulary, towers.weights, codes, *kept), users)
    with torch.no_grad():
        expected = towers.model(bags, bags, torch.zeros(graph.users)).numpy()
    viewers, shown = towers.vectors(graph, "past")
    np.testing.assert_allclose(viewers @ shown.T, expected, atol=1e-5)


def test_the_same_seed_learns_the_same(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_tower, "BATCH", 64)
    monkeypatch.setattr(two_tower, "EPOCHS", 2)
    once, again, other = (learn_towers(graph, seed).vectors(graph, "now") for seed in (SEED, SEED, SEED + 1))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_without_friendships_nothing_is_learnt(graph: Graph) -> None:
    prepare(1, SEED)
    none = graph.past.connections.empty(graph.users)
    towers = two_tower.train_towers(graph, graph.past, none, np.zeros((0, 2), np.int64), SEED)
    assert towers.metrics == {"epochs": 0, "best_epoch": 0, "losses": [0.0]}
    assert np.isfinite(towers.vectors(graph, "past")).all()
