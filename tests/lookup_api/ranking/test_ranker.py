import json
from pathlib import Path

import numpy as np
import pytest

from infra.settings import RankerSettings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.learning import learn_trees, of_one_signal, report
from lookup_api.ranking.ranker import Ranker, linear
from lookup_api.ranking.ranker_growth import LABELS_PER_TREE
from lookup_api.ranking.ranker_lists import Lists, ndcg, recall
from lookup_api.ranking.ranker_prior import default_prior, fit_prior
from tests.suites.planted_lists import CURVES, TELLS, planted

SETTINGS = RankerSettings(trees=40)


def test_the_prior_finds_the_weight_that_made_the_labels() -> None:
    """Gumbel noise makes the winner's choice exactly the softmax that the prior fits (Luce, 1959)."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(2000 * 10, len(FEATURES))).astype(np.float32)
    truth = 0.8 * matrix[:, TELLS] - 0.4 * matrix[:, CURVES] + rng.gumbel(size=len(matrix))
    best = truth.reshape(2000, 10).argmax(1)
    label = (np.arange(10) == best[:, None]).reshape(-1)
    lists = Lists(matrix, label, np.arange(2001, dtype=np.int64) * 10, np.ones(2000, np.int64))
    weights = fit_prior(lists, np.array([TELLS, CURVES]), np.zeros(2), 1.0)
    np.testing.assert_allclose(weights, [0.8, -0.4], atol=0.08)


def test_a_signal_alone_orders_as_it_does_and_scores_in_log_odds() -> None:
    """As in the test above, with the winner's weight of one column to be found again whatever unit it comes in."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(2000 * 10, len(FEATURES))).astype(np.float32)
    matrix[:, TELLS] *= 50
    best = (0.02 * matrix[:, TELLS] + rng.gumbel(size=len(matrix))).reshape(2000, 10).argmax(1)
    label = (np.arange(10) == best[:, None]).reshape(-1)
    lists = Lists(matrix, label, np.arange(2001, dtype=np.int64) * 10, np.ones(2000, np.int64))
    ranker = of_one_signal(FEATURES[TELLS], lists)
    np.testing.assert_allclose(ranker.prior[TELLS], 0.02, atol=0.002)
    np.testing.assert_array_equal(ranker.score(matrix), linear(matrix, ranker.prior))
    assert np.flatnonzero(ranker.prior).tolist() == [TELLS]
    turned = of_one_signal(FEATURES[TELLS], Lists(-matrix, label, lists.offsets, lists.held))
    assert turned.prior[TELLS] > 0


def test_trees_add_what_the_prior_cannot_see() -> None:
    ranker, told = learn_trees(planted(300, 1), planted(450, 2), SETTINGS, 1, 3)
    fresh = planted(200, 9)
    assert told["trees"] > 0
    assert ndcg(fresh, ranker.score(fresh.matrix)) > ndcg(fresh, linear(fresh.matrix, ranker.prior)) + 0.03
    assert next(iter(report(ranker, planted(450, 2), 3)["importance"])) == "candidate_degree"


@pytest.mark.parametrize(("checked", "trees"), [(1, 60 // LABELS_PER_TREE), (300, 40)])
def test_few_labels_grow_few_trees_unless_validation_clearly_gains(checked: int, trees: int) -> None:
    _, told = learn_trees(planted(30, 1), planted(checked, 2), SETTINGS, 1, 3)
    assert told["learn_labels"] == 60
    assert told["trees"] == trees


def test_many_labels_keep_all_trees_where_few_lists_are_left_to_validate_on() -> None:
    _, told = learn_trees(planted(200, 1), planted(50, 2), SETTINGS, 1, 3)
    assert told["learn_labels"] // LABELS_PER_TREE > told["trees"] == SETTINGS.trees


@pytest.mark.parametrize("queries", [0, 3])
def test_with_hardly_a_label_the_defaults_rank(queries: int, tmp_path: Path) -> None:
    ranker, told = learn_trees(planted(queries), planted(queries), SETTINGS, 1, 3)
    np.testing.assert_array_equal(ranker.prior, default_prior())
    assert told["trees"] == 0
    ranker.save(tmp_path)
    matrix = planted(5).matrix
    expected = matrix.astype(np.float64) @ default_prior()
    np.testing.assert_allclose(Ranker.open(tmp_path).score(matrix), expected, atol=1e-5)


def test_a_ranker_saved_before_there_were_kinds_is_one_of_trees(tmp_path: Path) -> None:
    ranker, _ = learn_trees(planted(100, 1), planted(60, 2), SETTINGS, 2, 3)
    ranker.save(tmp_path)
    head = json.loads((tmp_path / "model.json").read_text())
    del head["kind"]
    (tmp_path / "model.json").write_text(json.dumps(head | {"version": 1}))
    matrix = planted(5).matrix
    np.testing.assert_array_equal(Ranker.open(tmp_path).score(matrix), ranker.score(matrix))


def test_recall_and_ndcg_of_a_list_worked_by_hand() -> None:
    """Friends at ranks 1 and 3 of a list of four, a third friend not in the list."""
    matrix = np.zeros((4, len(FEATURES)), np.float32)
    lists = Lists(matrix, np.array([True, False, False, True]), np.array([0, 4]), np.array([3]))
    score = np.array([9, 8, 1, 2], np.float32)
    assert recall(lists, score, 2) == pytest.approx(1 / 2)
    assert recall(lists, score, 20) == pytest.approx(2 / 3)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(lists, score) == pytest.approx((1 + 1 / np.log2(4)) / ideal)
