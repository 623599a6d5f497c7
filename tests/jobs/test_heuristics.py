"""The heuristics of the report against dense linear algebra."""

import json

import numpy as np
import pytest

from infra.graph import Csr
from jobs import heuristics, metrics
from tests.suites.real_graphs import SHARED, SMALL, small_campus


@pytest.fixture(scope="module")
def adjacency():
    rng = np.random.default_rng(8)
    half = np.triu(rng.random((70, 70)) < 0.08, 1)
    half[0, 1:60] = True  # a hub
    half[:, 69] = False  # an isolated user
    return (half | half.T).astype(float)


def dense_scores(a):
    """Scores of every pair, straight from the definitions."""
    degree = a.sum(axis=1)
    step = a / np.maximum(degree, 1)  # [to, from]
    start = np.eye(len(a))
    mass = start.copy()
    for _ in range(6):
        mass = 0.15 * start + 0.85 * step @ mass
    return {
        "common neighbours": a @ a,
        "Adamic-Adar": a @ np.diag(1 / np.log(np.maximum(degree, 2))) @ a,
        "resource allocation": a @ np.diag(1 / np.maximum(degree, 1)) @ a,
        "personalised PageRank": mass.T,
        "popularity": np.tile(degree, (len(a), 1)),
    }


def csr(a):
    return Csr.from_pairs(len(a), *np.nonzero(a))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", heuristics.HEURISTICS)
def test_lists_hold_the_best_scores_of_all_people(adjacency, name, threads):
    a, depth = adjacency, 30
    rows = np.arange(len(a))
    lists = heuristics.heuristic_lists(csr(a), rows, depth, threads)[name]
    scores = dense_scores(a)[name]
    for user in rows:
        allowed = np.flatnonzero((a[user] == 0) & (rows != user) & ((scores[user] > 0) | (name == "popularity")))
        best = np.sort(scores[user, allowed])[::-1][:depth]
        found = lists[user][lists[user] >= 0]
        assert set(found) <= set(allowed)
        assert len(set(found)) == len(found)
        np.testing.assert_allclose(scores[user, found], best, rtol=1e-9)


def test_equal_scores_go_to_the_lower_row():
    a = np.zeros((6, 6))
    for other in (1, 2, 3, 4, 5):
        a[0, other] = a[other, 0] = 1
    found = heuristics.heuristic_lists(csr(a), np.array([3]), 3, 1)
    assert found["common neighbours"].tolist() == [[1, 2, 4]]


def test_a_network_without_friendships_gives_empty_lists_but_popularity():
    found = heuristics.heuristic_lists(Csr.empty(3), np.array([1]), 4, 1)
    assert found.pop("popularity").tolist() == [[0, 2, -1, -1]]
    assert all((lists == -1).all() for lists in found.values())


@pytest.mark.graphs
@pytest.mark.parametrize("name", ["common neighbours", "resource allocation", "personalised PageRank", "popularity"])
def test_recall_is_that_of_the_peers_on_a_real_graph(name):
    _, graph = small_campus()
    users = len(graph.ids)
    friends, hidden = (Csr.from_pairs(users, *m.nonzero()) for m in (graph.visible, graph.hidden))
    lists = heuristics.heuristic_lists(friends, graph.asked, 100, 2)[name]
    found = metrics.per_user(metrics.find_hits(lists, graph.asked, hidden), hidden.degrees()[graph.asked]).means()
    short = {
        "common neighbours": "CN",
        "resource allocation": "RA",
        "personalised PageRank": "PPR",
        "popularity": "degree",
    }
    expected = json.loads((SHARED / "eval" / "peers" / f"{SMALL}.json").read_text())[short[name]]
    # Ties are broken differently there.
    assert found["recall@20"] == pytest.approx(expected["recall20"], abs=0.01)
    assert found["mrr"] == pytest.approx(expected["mrr"], abs=0.01)
