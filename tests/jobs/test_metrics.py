"""Metrics against plain Python brute force, and against the quality harness where it is there."""

import math

import numpy as np
import pytest

from infra.graph import Csr
from jobs import metrics
from tests.suites.real_graphs import small_campus


def random_case(seed: int, users: int = 60, asked: int = 25, depth: int = 100):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(users, asked, replace=False))
    pairs = {(int(u), int(v)) for u in rows for v in rng.choice(users, rng.integers(1, 30)) if u != v}
    pairs |= {(int(u), int((u + 1) % users)) for u in rows}
    u, v = np.array(sorted(pairs)).T
    hidden = Csr.from_pairs(users, u, v)
    lists = np.full((asked, depth), -1, np.int32)
    for i in range(asked):
        length = rng.integers(0, min(users, depth))
        lists[i, :length] = rng.permutation(users)[:length]
    return lists, rows, hidden


def brute_force(lists, rows, hidden, k=20):
    """Each metric user by user, as its definition reads."""
    out = {"recall@5": [], "recall@20": [], "ndcg@20": [], "mrr": [], "recall@100": []}
    for found, row in zip(lists.tolist(), rows.tolist(), strict=True):
        friends = set(hidden.row(row).tolist())
        ranks = [place + 1 for place, candidate in enumerate(found) if candidate in friends]
        out["recall@5"].append(sum(r <= 5 for r in ranks) / min(5, len(friends)))
        out["recall@20"].append(sum(r <= k for r in ranks) / min(k, len(friends)))
        out["recall@100"].append(len(ranks) / min(100, len(friends)))
        ideal = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(friends)) + 1))
        out["ndcg@20"].append(sum(1 / math.log2(r + 1) for r in ranks if r <= k) / ideal)
        out["mrr"].append(1 / ranks[0] if ranks else 0)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_its_definition(seed):
    lists, rows, hidden = random_case(seed)
    hits = metrics.find_hits(lists, rows, hidden)
    found = metrics.per_user(hits, hidden.degrees()[rows])
    for name, expected in brute_force(lists, rows, hidden).items():
        np.testing.assert_allclose(getattr(found, metrics.PerUser.NAMES[name]), expected, rtol=1e-12)
        assert found.means()[name] == pytest.approx(np.mean(expected))


def test_spread_equals_its_definition():
    lists, _, hidden = random_case(3)
    shown = [0] * hidden.rows
    for found in lists[:, :20].tolist():
        for candidate in found:
            if candidate >= 0:
                shown[candidate] += 1
    differences = sum(abs(a - b) for a in shown for b in shown)
    got = metrics.spread(lists, hidden.rows)
    assert got["coverage"] == pytest.approx(sum(s > 0 for s in shown) / len(shown))
    assert got["gini"] == pytest.approx(differences / (2 * len(shown) * sum(shown)))
    assert got["top_1_percent_share"] == pytest.approx(max(shown) / sum(shown))


def test_similarity_is_the_mean_cosine_of_all_pairs_of_a_list():
    lists, _, hidden = random_case(4)
    vectors = np.random.default_rng(0).normal(size=(hidden.rows, 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    means = []
    for found in lists[:, :20].tolist():
        people = [row for row in found if row >= 0]
        cosines = [float(vectors[a] @ vectors[b]) for i, a in enumerate(people) for b in people[:i]]
        means += [np.mean(cosines)] if cosines else []
    assert metrics.list_similarity(lists, vectors) == pytest.approx(np.mean(means), abs=1e-6)
    assert metrics.list_similarity(lists[:0], vectors) is None


def test_recall_by_source_counts_whom_the_source_named():
    lists, rows, hidden = random_case(5)
    bits = np.random.default_rng(1).choice([1, 2, 3, 4, 32], size=lists.shape).astype(np.uint8)
    held = hidden.degrees()[rows]
    found = metrics.by_source(metrics.find_hits(lists, rows, hidden), bits, held)
    for bit, name in ((1, "two_hop"), (2, "walk"), (4, "ann"), (32, "joint_walk"), (8, "affiliation")):
        mine = np.where((bits & bit) > 0, lists, -1)
        alone = np.where(bits == bit, lists, -1)
        expected = brute_force_places(mine, rows, hidden)
        assert {k: found[name][f"recall@{k}"] for k in (5, 20, 100)} == pytest.approx(expected)
        assert found[name]["alone@20"] == pytest.approx(brute_force_places(alone, rows, hidden)[20])


def brute_force_places(lists, rows, hidden):
    """Recall at 5, 20 and 100 where people keep their places."""
    out = {5: [], 20: [], 100: []}
    for found, row in zip(lists.tolist(), rows.tolist(), strict=True):
        friends = set(hidden.row(row).tolist())
        for k in out:
            out[k].append(len(friends & set(found[:k])) / min(k, len(friends)))
    return {k: np.mean(values) for k, values in out.items()}


def test_equal_exposure_has_gini_zero_and_one_star_nearly_one():
    assert metrics.gini(np.full(50, 7)) == pytest.approx(0)
    assert metrics.gini(np.r_[np.zeros(99, int), 5]) == pytest.approx(0.99)


def test_a_perfect_list_scores_one_and_an_empty_one_zero():
    hidden = Csr.from_pairs(6, np.array([0, 0, 1]), np.array([3, 4, 5]))
    perfect = np.array([[3, 4, -1], [5, -1, -1]], np.int32)
    rows = np.array([0, 1])
    for lists, score in ((perfect, 1.0), (np.full((2, 3), -1, np.int32), 0.0), (np.zeros((2, 0), np.int32), 0.0)):
        found = metrics.per_user(metrics.find_hits(lists, rows, hidden), hidden.degrees()[rows])
        assert found.means() == dict.fromkeys(metrics.PerUser.NAMES, score)


def test_nobody_asked_is_none_not_zero():
    hidden = Csr.empty(4)
    lists = np.full((0, 100), -1, np.int32)
    found = metrics.per_user(metrics.find_hits(lists, np.zeros(0, np.int64), hidden), np.zeros(0, np.int64))
    assert set(found.means().values()) == {None}
    assert set(found.intervals(1).values()) == {None}
    assert metrics.spread(lists, 0) == {"coverage": None, "gini": None, "top_1_percent_share": None}


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    values = np.random.default_rng(0).random(4000)
    low, high = metrics.interval_of(metrics.resampled_means(values, 1))
    assert (low, high) == metrics.interval_of(metrics.resampled_means(values, 1))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert high - low == pytest.approx(2 * half, rel=0.15)
    assert low < values.mean() < high


@pytest.mark.graphs
def test_metrics_equal_those_of_the_quality_harness():
    harness, graph = small_campus()
    users = len(graph.ids)
    rng = np.random.default_rng(4)
    hidden = Csr.from_pairs(users, *graph.hidden.nonzero())
    lists = np.stack([rng.permutation(users)[:100] for _ in graph.asked]).astype(np.int32)
    expected = harness.measures(dict(zip(graph.asked.tolist(), lists, strict=True)), graph)
    found = metrics.per_user(metrics.find_hits(lists, graph.asked, hidden), hidden.degrees()[graph.asked])
    for name in ("recall@20", "ndcg@20", "mrr", "recall@100"):
        assert found.means()[name] == pytest.approx(expected[name.replace("@", "")], rel=1e-9)
    assert metrics.spread(lists, users)["coverage"] == pytest.approx(expected["coverage"])
