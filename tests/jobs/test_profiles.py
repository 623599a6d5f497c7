"""Profiles say of a graph and of rankings what brute force says."""

from itertools import combinations, pairwise

import numpy as np
import pytest

from infra.graph import Csr
from jobs.entries import contains
from jobs.profiles import DEGREE_EDGES, WEDGES, ShownProfile, closed_wedges, input_profile
from tests.suites.planted import bare_graph, planted_graph


def transitivity(friends: Csr) -> float:
    """Closed pairs of friends of one person, over all such pairs."""
    known = {(r, int(c)) for r in range(friends.rows) for c in friends.row(r)}
    wedges = [pair for r in range(friends.rows) for pair in combinations(friends.row(r).tolist(), 2)]
    return sum(pair in known for pair in wedges) / len(wedges)


def test_closed_wedges_estimate_the_transitivity() -> None:
    friends = planted_graph().now.connections
    closed, looked_at = closed_wedges(friends)
    assert looked_at == WEDGES
    assert closed / looked_at == pytest.approx(transitivity(friends), abs=3 * 0.5 / WEDGES**0.5)
    assert closed_wedges(friends) == [closed, looked_at]


def test_a_triangle_is_closed_and_a_star_is_open() -> None:
    triangle = Csr.from_pairs(3, np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1]))
    assert closed_wedges(triangle) == [WEDGES, WEDGES]
    star = Csr.from_pairs(4, np.array([0, 0, 0, 1, 2, 3]), np.array([1, 2, 3, 0, 0, 0]))
    assert closed_wedges(star) == [0, WEDGES]
    assert closed_wedges(Csr.empty(5)) == [0, 0]
    assert closed_wedges(Csr.empty(0)) == [0, 0]


def test_shuffled_friendships_lose_their_triangles() -> None:
    friends = planted_graph().now.connections
    draw = np.random.default_rng(1)
    both = draw.permutation(friends.indices), draw.permutation(friends.indices)
    pairs = np.unique(np.sort(np.stack(both), axis=0), axis=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    shuffled = Csr.from_pairs(friends.rows, np.concatenate(pairs), np.concatenate(pairs[::-1]))
    assert closed_wedges(shuffled)[0] < 0.6 * closed_wedges(friends)[0]


def test_an_input_profile_counts_what_there_is() -> None:
    graph = planted_graph()
    profile = input_profile(graph)
    assert profile["counts"]["users"] == graph.users
    assert profile["counts"]["friendships"] == len(graph.now.connections.indices) // 2
    assert profile["rates"]["users with the attribute school"] == [int((graph.attribute_codes[0] >= 0).sum()), 240]
    assert profile["rates"]["users with an affiliation"] == [240, 240]
    degrees = graph.now.connections.degrees()
    edges = [0, *DEGREE_EDGES, np.inf]
    expected = [int(((degrees >= a) & (degrees < b)).sum()) for a, b in pairwise(edges)]
    assert profile["degrees"] == expected
    assert sum(profile["degrees"]) == graph.users


@pytest.mark.parametrize("users", [0, 3])
def test_a_bare_graph_has_a_profile(users: int) -> None:
    profile = input_profile(bare_graph(users))
    assert profile["counts"]["users"] == users
    assert sum(profile["degrees"]) == users


def test_who_is_shown_is_counted_over_all_parts_and_first_places_only() -> None:
    profile = ShownProfile(np.zeros(5, np.int64))
    profile.add(np.array([1, 2, -1]), np.array([1, 20, 3]), np.array([0.5, 0.1, 9.0], np.float32))
    profile.add(np.array([1, 3]), np.array([1, 21]), np.array([0.7, np.nan], np.float32))
    assert profile.shown.tolist() == [0, 2, 1, 0, 0]
    assert profile.spread()["coverage"] == 2 / 5
    scores = profile.score_profile()
    assert [(rank, found["lists"]) for rank, found in scores.items()] == [("1", 2), ("20", 1)]
    assert scores["1"]["percentiles"][50] == pytest.approx(0.6)
    assert ShownProfile(np.zeros(0, np.int64)).score_profile()["1"] == {"lists": 0, "percentiles": []}


def test_contains_is_membership() -> None:
    friends = planted_graph().now.connections
    rows, columns = np.meshgrid(np.arange(60), np.arange(60))
    found = contains(friends, rows.ravel(), columns.ravel())
    known = {(r, int(c)) for r in range(60) for c in friends.row(r)}
    assert found.tolist() == [
        pair in known for pair in zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)
    ]
