"""Each kernel against a few lines of dense linear algebra or brute force."""

import numpy as np
import pytest

from infra.graph import NO_DAY, Csr
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.factors import factorise
from lookup_api.ranking.groups import kinds_of
from lookup_api.ranking.neighbourhood import clear, two_hop
from lookup_api.ranking.network import Network, today_of
from lookup_api.ranking.selection import take_best, unite
from lookup_api.ranking.walks import ALPHA, STEPS, alone, scratch_for, together, walk
from tests.lookup_api.ranking.networks import dense, small_graph

GRAPH = small_graph()
NETWORK = Network.build(GRAPH, "now")
FRIENDS = dense(NETWORK.friends, GRAPH.users)
DEGREE = FRIENDS.sum(1)


def hops(user: int, cap: int = 1000, seed: int = 1) -> np.ndarray:
    scores, nodes = np.zeros((GRAPH.users, 4), np.float32), np.empty(GRAPH.users, np.int32)
    days = readonly(NETWORK.days)
    count = two_hop(user, *pair(NETWORK.friends), days, NETWORK.today, cap, seed, scores, nodes)
    found = scores.copy()
    clear(scores, nodes, count)
    assert not scores.any()
    return found


def test_two_hop_scores_are_those_of_matrix_products() -> None:
    safe = np.maximum(DEGREE, 2)
    for user in (0, 17, 150):
        row = FRIENDS[user]
        expected = np.stack(
            [(row * w) @ FRIENDS for w in (np.ones(len(row)), 1 / np.log(safe), 1 / np.maximum(DEGREE, 1))]
        )
        np.testing.assert_allclose(hops(user)[:, :3].T, expected, rtol=1e-5)


def test_a_path_counts_half_a_year_after_its_later_friendship() -> None:
    day = np.full((GRAPH.users, GRAPH.users), -1)
    day[np.repeat(np.arange(GRAPH.users), DEGREE.astype(int)), NETWORK.friends.indices] = NETWORK.days
    expected = np.zeros(GRAPH.users)
    for middle in np.flatnonzero(FRIENDS[3]):
        for node in np.flatnonzero(FRIENDS[middle]):
            age = NETWORK.today - max(day[3, middle], day[middle, node])
            expected[node] += 0.5 ** (age / 365) / DEGREE[middle]
    np.testing.assert_allclose(hops(3)[:, 3], expected, rtol=1e-5)


def test_without_days_every_path_is_fresh() -> None:
    undated = Network.build(small_graph(timed=False), "now")
    assert (undated.days == NO_DAY).all()
    scores, nodes = np.zeros((undated.users, 4), np.float32), np.empty(undated.users, np.int32)
    two_hop(3, *pair(undated.friends), readonly(undated.days), undated.today, 1000, 1, scores, nodes)
    np.testing.assert_array_equal(scores[:, 2], scores[:, 3])


def test_of_a_hub_the_same_sample_is_looked_at_whoever_asks() -> None:
    capped = hops(0, cap=3)
    np.testing.assert_array_equal(capped, hops(0, cap=3))
    assert capped[:, 0].sum() == sum(min(3, DEGREE[f]) for f in np.flatnonzero(FRIENDS[0]))
    assert not np.array_equal(capped, hops(0, cap=3, seed=2))


def walked(user: int, paths: tuple, budget: int) -> np.ndarray:
    scratch = scratch_for(paths)
    count = walk(user, paths, budget, scratch)
    found = scratch[0].copy()
    assert set(scratch[1][:count]) == set(np.flatnonzero(found))
    clear(scratch[0], scratch[1], count)
    assert not any(part.any() for part in (scratch[0], scratch[2], scratch[4]))
    return found


def power_iteration(transition: np.ndarray, user: int) -> np.ndarray:
    start = np.eye(len(transition))[user]
    x = start.copy()
    for _ in range(STEPS):
        x = ALPHA * start + (1 - ALPHA) * x @ transition
    return x


def test_a_walk_within_budget_is_the_power_iteration() -> None:
    transition = FRIENDS / np.maximum(DEGREE, 1)[:, None]
    for user in (0, 99):
        np.testing.assert_allclose(
            walked(user, alone(NETWORK.friends), 10**9), power_iteration(transition, user), rtol=1e-4, atol=1e-8
        )


def test_a_joint_walk_is_the_power_iteration_over_friends_and_weighted_groups() -> None:
    groups = NETWORK.groups
    belongs = dense(groups.of_user, len(groups.draw))
    size = np.maximum(belongs.sum(0), 1)
    weight = FRIENDS + (belongs * groups.draw / size) @ belongs.T
    total = DEGREE + groups.pull
    transition = weight / np.maximum(total, 1e-30)[:, None]
    found = walked(42, together(NETWORK.friends, groups), 10**9)
    np.testing.assert_allclose(found, power_iteration(transition, 42), rtol=1e-3, atol=1e-7)


def test_a_walk_out_of_budget_keeps_the_nearest() -> None:
    full, short = walked(0, alone(NETWORK.friends), 10**9), walked(0, alone(NETWORK.friends), 300)
    assert 0 < np.count_nonzero(short) < np.count_nonzero(full)
    assert (short <= full * (1 + 1e-5)).all()
    assert short[FRIENDS[0] > 0].all()


def test_who_has_nobody_stays_where_they_are() -> None:
    found = walked(GRAPH.users - 1, alone(NETWORK.friends), 1000)
    assert np.flatnonzero(found).tolist() == [GRAPH.users - 1]
    assert found[-1] == pytest.approx(1)


def test_groups_know_the_friendships_inside_them() -> None:
    groups = NETWORK.groups
    belongs = dense(groups.of_user, len(groups.draw))
    inside = np.einsum("ug,uv,vg->g", belongs, FRIENDS, belongs)
    school = kinds_of(GRAPH) == 1
    real = belongs.sum(0) > 1
    rate = inside / np.maximum(belongs.sum(0), 1)
    assert np.corrcoef(rate[school & real], groups.draw[school & real])[0, 1] > 0.9
    assert groups.draw[school].mean() > 20 * groups.draw[kinds_of(GRAPH) == 2].mean()
    np.testing.assert_allclose(groups.pull, belongs @ groups.draw, rtol=1e-4)


def test_the_past_stands_where_the_held_out_friendships_begin() -> None:
    assert today_of(GRAPH, "past") == GRAPH.held_out_day.min()
    assert today_of(GRAPH, "now") == GRAPH.as_of_day
    assert today_of(small_graph(timed=False), "past") == GRAPH.as_of_day


def test_the_best_few_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(5)
    score = rng.integers(0, 30, 500).astype(np.float32)
    barred = rng.random(500) < 0.1
    nodes = rng.permutation(500).astype(np.int32)
    open_to = np.flatnonzero((score > 0) & ~barred)
    expected = open_to[np.lexsort((open_to, -score[open_to]))]
    for k in (1, 7, 499, 600):
        rows, scores = np.empty(k, np.int32), np.empty(k, np.float32)
        size = take_best(nodes, 500, score, barred, rows, scores)
        np.testing.assert_array_equal(rows[:size], expected[:k])
        np.testing.assert_array_equal(scores[:size], score[expected[:k]])
        assert (rows[size:] == -1).all()


def test_a_union_prefers_whom_several_sources_name_and_says_which() -> None:
    lists = np.array([[1, 2, 3], [3, 4, -1]], np.int32)
    merit, seen, nodes = np.zeros(6, np.float32), np.zeros(6, np.uint8), np.empty(6, np.int32)
    count = unite(lists, np.array([1, 2], np.uint8), np.ones(2, np.float32), merit, seen, nodes)
    assert sorted(nodes[:count]) == [1, 2, 3, 4]
    assert np.argsort(-merit, kind="stable")[:4].tolist() == [3, 1, 2, 4]
    assert seen.tolist() == [0, 1, 1, 3, 2, 0]


def test_factors_tell_communities_apart_whatever_the_threads() -> None:
    viewers, shown = factorise(NETWORK.friends, 1, 1)
    again = factorise(NETWORK.friends, 1, 2)
    np.testing.assert_array_equal(viewers, again[0])
    np.testing.assert_array_equal(shown, again[1])
    score = viewers @ shown.T
    near = np.arange(GRAPH.users)[:, None] // 20 == np.arange(GRAPH.users) // 20
    strangers = (FRIENDS == 0) & ~np.eye(GRAPH.users, dtype=bool)
    assert score[strangers & near].mean() > 3 * score[strangers & ~near].mean()
    assert not viewers[-1].any()


def test_factors_of_a_graph_without_friendships_are_zero() -> None:
    assert not np.concatenate(factorise(Csr.empty(4), 1, 2)).any()
