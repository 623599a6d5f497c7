"""The stability index of many histograms at once, beside an independent calculation."""

import numpy as np
import pytest
from scipy.stats import entropy, norm

from lookup_api.ranking.stability import CHANCE, stability_index, stability_indexes

MANY = 10**9


def test_of_large_histograms_it_is_jeffreys_divergence() -> None:
    """Kullback and Leibler, 1951: the sum of both relative entropies, here by scipy."""
    draw = np.random.default_rng(1)
    p, q = draw.dirichlet(np.full(12, 2.0), 30), draw.dirichlet(np.full(12, 2.0), 30)
    wanted = entropy(p, q, axis=1) + entropy(q, p, axis=1)
    found = stability_indexes(np.round(p * MANY), np.round(q * MANY))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_of_normal_scores_that_moved_by_a_standard_deviation_it_is_nearly_one() -> None:
    """The divergence of two normals a standard deviation apart is exactly 1; bins lose a little of it."""
    edges = norm.ppf(np.arange(1, 400) / 400)
    usual = np.diff(norm.cdf(edges), prepend=0, append=1) * MANY
    moved = np.diff(norm.cdf(edges - 1), prepend=0, append=1) * MANY
    assert stability_index(moved, usual) == pytest.approx(1, abs=0.02)


def test_each_of_many_is_what_it_is_alone_whatever_is_beside_it() -> None:
    draw = np.random.default_rng(2)
    now, before = draw.integers(0, 40, (20, 9)), draw.integers(0, 40, (20, 9))
    now[3], before[4], now[5], before[5] = 0, 0, 0, 0
    now[6, 4:], before[6, 4:] = 0, 0
    alone = [stability_index(*pair) for pair in zip(now, before, strict=True)]
    np.testing.assert_array_equal(stability_indexes(now, before), alone)
    assert alone[6] == pytest.approx(stability_index(now[6, :4], before[6, :4]), abs=1e-12), "empty bins count nothing"
    assert alone[3:6] == [0, 0, 0]


def test_what_chance_explains_is_taken_off() -> None:
    now, before = np.array([600, 400]), np.array([500, 500])
    p, q = (now + 0.5) / 1001, (before + 0.5) / 1001
    raw = float(((p - q) * np.log(p / q)).sum())
    assert stability_index(now, before) == pytest.approx(raw - 2 / 1000 * (1 + CHANCE * np.sqrt(2)))
