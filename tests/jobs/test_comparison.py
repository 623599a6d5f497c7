"""Paired comparisons against plain Python, and against what is known of equal and of unlike rankings."""

import random

import numpy as np
import pytest

from jobs.comparison import against_best, compare
from jobs.metrics import PerUser


def per_user(values) -> PerUser:
    return PerUser(*(np.array(values, float) for _ in PerUser.NAMES))


def noisy(seed: int, users: int = 400, gain: float = 0.0) -> PerUser:
    """Users differ much, the gain is the same for all: what pairing is for."""
    return per_user(np.random.default_rng(seed).random(users) ** 2 + gain)


def test_a_ranking_beside_itself_has_ratio_one_and_no_doubt():
    found = compare(noisy(1), noisy(1), seed=3)["recall@20"]
    assert found["ratio"] == 1
    assert found["difference"] == 0
    assert found["ratio_interval"] == (1, 1)
    assert found["difference_interval"] == (0, 0)


def test_pairing_takes_out_how_much_users_differ():
    found = compare(noisy(1, gain=0.01), noisy(1), seed=3)["ndcg@20"]
    low, high = found["difference_interval"]
    assert (low, high) == pytest.approx((0.01, 0.01))
    assert 1 < found["ratio_interval"][0] < found["ratio"] < found["ratio_interval"][1] < 1.06


def test_an_interval_is_that_of_plain_resampling():
    own, other = noisy(1), noisy(2)
    found = compare(own, other, seed=3)["mrr"]
    draw, pairs = random.Random(0), list(zip(own.mrr, other.mrr, strict=True))
    ratios = []
    for _ in range(2000):
        again = draw.choices(pairs, k=len(pairs))
        ratios.append(sum(a for a, _ in again) / sum(b for _, b in again))
    ratios.sort()
    assert found["ratio_interval"] == pytest.approx((ratios[50], ratios[1949]), abs=0.02)
    assert found["own"] == pytest.approx(sum(own.mrr) / 400)


def test_nobody_and_a_rival_that_finds_nothing_have_no_ratio():
    assert set(compare(per_user([]), per_user([]), 1)["mrr"].values()) == {None}
    nothing = compare(noisy(1), per_user(np.zeros(400)), 1)["recall@5"]
    assert nothing["ratio"] is None
    assert nothing["ratio_interval"] is None
    assert nothing["difference"] > 0


def test_each_metric_has_its_own_best_rival():
    one, two = noisy(1), noisy(1)
    one.recall_20[:] += 0.5
    values = {"own": noisy(4), "one": one, "two": two}
    two.mrr[:] += 0.5
    found = against_best(values, "own", ("one", "two", "three"), seed=1)
    assert found["recall@20"]["heuristic"] == "one"
    assert found["mrr"]["heuristic"] == "two"
    assert found["recall@20"]["ratio"] == pytest.approx(values["own"].recall_20.mean() / one.recall_20.mean())
    assert against_best({"own": per_user([])}, "own", (), 1) == {}
