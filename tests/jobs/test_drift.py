"""How far two nights are apart: equal ones are not, chance is no drift, and what is gone is."""

from typing import Any

import numpy as np
import pytest

from jobs.drift import degree_shift, input_changes, relative_change, score_shifts, stability_index
from jobs.profiles import PERCENTS


def test_the_stability_index_of_large_histograms_is_the_textbook_sum() -> None:
    """Siddiqi, Credit Risk Scorecards (2006): sum of (actual - expected) x ln(actual / expected)."""
    now, before = np.array([30.0, 50.0, 20.0]) * 1e6, np.array([20.0, 50.0, 30.0]) * 1e6
    expected = 0.1 * np.log(0.3 / 0.2) * 2
    assert stability_index(now, before) == pytest.approx(expected, abs=1e-4)
    assert stability_index(before, now) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("users", [20, 300, 10_000])
def test_two_draws_of_one_population_are_no_drift(users: int) -> None:
    draw = np.random.default_rng(users)
    shares = np.array([0.02, 0.08, 0.2, 0.3, 0.25, 0.1, 0.04, 0.01])
    found = [stability_index(*draw.multinomial(users, shares, 2).astype(float)) for _ in range(200)]
    assert max(found) < 0.1
    assert np.mean(np.array(found) > 0) < 0.05


def test_empty_histograms_are_no_drift() -> None:
    assert stability_index(np.zeros(3), np.ones(3)) == 0
    assert stability_index(np.zeros(3), np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("found", "before", "change"),
    [(10**9, 10**9, 0), (13 * 10**8, 10**9, 0.3), (10**9, 13 * 10**8, 0.3), (5, 0, 0), (0, 5, 0), (0, 10, np.inf)],
)
def test_a_change_is_as_large_down_as_up(found: int, before: int, change: float) -> None:
    assert relative_change(found, before) == pytest.approx(change, abs=1e-3)


def test_small_counts_may_move_by_chance() -> None:
    draw = np.random.default_rng(3)
    pairs = draw.poisson(30, (1000, 2)).tolist()
    assert np.mean([relative_change(found, before) > 0 for found, before in pairs if found]) < 0.01
    assert relative_change(3, 300) > 0.3


def test_rates_are_compared_among_those_who_could_have_it() -> None:
    def rates(**found: list[int]) -> dict[str, object]:
        return {"counts": {}, "rates": found}

    (same,) = input_changes(rates(school=[80_000, 100_000]), rates(school=[40_000, 50_000]))
    assert same.size == 0
    (fewer,) = input_changes(rates(school=[40_000, 100_000]), rates(school=[40_000, 50_000]))
    assert fewer.size == pytest.approx(1.0, abs=0.05)
    assert fewer.detail == "40.0% school, 80.0% before"
    (gone,) = input_changes(rates(), rates(school=[40_000, 50_000]))
    assert gone.size == np.inf
    assert list(input_changes(rates(club=[1, 2]), rates())) == []


def scores(first: np.ndarray, last: np.ndarray | None = None) -> dict[str, Any]:
    """Of a night whose scores at rank 20 are those at rank 1 less 3, where none are given."""
    ranks = {"1": first, "20": first - 3 if last is None else last}
    return {
        rank: {"lists": len(found), "percentiles": np.percentile(found, PERCENTS).tolist() if len(found) else []}
        for rank, found in ranks.items()
    }


def shifts(now: dict[str, Any], before: dict[str, Any]) -> dict[str, float]:
    return {change.detail: change.size for change in score_shifts(now, before)}


def test_scores_have_no_zero_and_no_unit() -> None:
    draw = np.random.default_rng(5)
    before = draw.normal(size=20_000)
    for again in (draw.normal(size=20_000), 7 + draw.normal(size=20_000)):
        assert max(shifts(scores(again), scores(before)).values()) < 0.01
    scaled = draw.normal(size=20_000)
    assert max(shifts(scores(100 * scaled, 100 * (scaled - 3)), scores(before)).values()) < 0.01


def test_scores_are_compared_by_tenths_of_those_before() -> None:
    draw = np.random.default_rng(6)
    before = draw.normal(size=50_000)
    wider = 2 * draw.normal(size=50_000)
    found = shifts(scores(wider), scores(before))
    edges = np.percentile(before, range(10, 100, 10))
    shares = np.diff([np.mean(wider < edge) for edge in edges], prepend=0, append=1)
    expected = float(((shares - 0.1) * np.log(shares / 0.1)).sum())
    assert set(found) == {"scores at rank 1 are spread otherwise", "scores at rank 20 are spread otherwise"}
    assert list(found.values()) == pytest.approx([expected] * 2, rel=0.15)


def test_a_ranker_that_tells_nobody_apart_is_far_from_any_other() -> None:
    some = scores(np.random.default_rng(0).normal(size=500))
    flat = scores(np.zeros(500), np.zeros(500))
    assert list(shifts(flat, some).values()) == [np.inf]
    assert shifts(flat, flat) == {}
    assert shifts(some, flat) == {}
    two_steps = scores(np.repeat([0.0, 1.0], 250), np.full(500, -1.0))
    assert set(shifts(two_steps, two_steps).values()) == {0.0}
    assert max(shifts(two_steps, some).values()) > 2


def test_no_scores_are_not_compared() -> None:
    some, none = scores(np.arange(9.0)), scores(np.empty(0))
    assert shifts(none, some) == shifts(some, none) == shifts({}, some) == {}
    assert shifts(scores(np.arange(9.0), np.empty(0)), some) == {}, "nobody has so long a list"


def test_degrees_are_compared_as_histograms() -> None:
    change = degree_shift({"degrees": [0, 9_000, 1_000]}, {"degrees": [0, 5_000, 5_000]})
    assert change.size == pytest.approx(0.4 * np.log(9 / 5) + 0.4 * np.log(5), abs=0.01)
