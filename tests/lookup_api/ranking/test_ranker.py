from pathlib import Path

import numpy as np
import pytest

from infra.errors import CorruptArtifact, GateRefused
from infra.settings import RankerSettings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.learning import (
    LABELS_PER_TREE,
    Lists,
    area_under_roc,
    default_prior,
    fit_prior,
    learn,
    ndcg,
    recall,
    refuse_leak,
)  # fmt: skip
from lookup_api.ranking.ranker import Ranker

SETTINGS = RankerSettings(trees=40)
TELLS, CURVES = FEATURES.index("log_joint"), FEATURES.index("candidate_degree")


def planted(queries: int, seed: int = 0, size: int = 30) -> Lists:
    """Lists whose held-out friends follow log_joint and, not linearly, candidate_degree; the rest is noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(queries * size, len(FEATURES))).astype(np.float32)
    truth = 1.5 * matrix[:, TELLS] + 3.0 * (np.abs(matrix[:, CURVES]) < 0.5) + rng.gumbel(size=len(matrix))
    rank = (-truth.reshape(queries, size)).argsort(1).argsort(1).reshape(-1)
    offsets = np.arange(queries + 1, dtype=np.int64) * size
    return Lists(matrix, rank < 2, offsets, np.full(queries, 3, np.int64))


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


def test_trees_add_what_the_prior_cannot_see() -> None:
    ranker, told = learn(planted(300, 1), planted(450, 2), SETTINGS, 1, 3)
    fresh = planted(200, 9)
    prior = Ranker(ranker.booster[:0] if told["trees"] else ranker.booster, ranker.prior)
    assert told["trees"] > 0
    assert ndcg(fresh, ranker.score(fresh.matrix)) > ndcg(fresh, fresh.matrix @ prior.prior.astype(np.float32)) + 0.03
    assert max(told["importance"], key=lambda name: told["importance"][name]) == "candidate_degree"


@pytest.mark.parametrize(("checked", "trees"), [(1, 60 // LABELS_PER_TREE), (300, 40)])
def test_few_labels_grow_few_trees_unless_validation_clearly_gains(checked: int, trees: int) -> None:
    _, told = learn(planted(30, 1), planted(checked, 2), SETTINGS, 1, 3)
    assert told["learn_labels"] == 60
    assert told["trees"] == trees


@pytest.mark.parametrize("queries", [0, 3])
def test_with_hardly_a_label_the_defaults_rank(queries: int, tmp_path: Path) -> None:
    ranker, told = learn(planted(queries), planted(queries), SETTINGS, 1, 3)
    np.testing.assert_array_equal(ranker.prior, default_prior())
    assert told["trees"] == 0
    ranker.save(tmp_path)
    matrix = planted(5).matrix
    expected = matrix.astype(np.float64) @ default_prior()
    np.testing.assert_allclose(Ranker.open(tmp_path).score(matrix), expected, atol=1e-5)


def test_a_saved_ranker_scores_as_the_trained_one_alone_or_in_a_block(tmp_path: Path) -> None:
    ranker, _ = learn(planted(100, 1), planted(60, 2), SETTINGS, 2, 3)
    ranker.save(tmp_path)
    opened, matrix = Ranker.open(tmp_path), planted(20, 5).matrix
    scores = opened.score(matrix)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, ranker.score(matrix), atol=1e-5)
    np.testing.assert_array_equal([opened.score(matrix[i : i + 1])[0] for i in range(50)], scores[:50])
    assert opened.score(matrix[:0]).shape == (0,)


def test_learning_again_gives_the_same_trees() -> None:
    one, two = (learn(planted(100, 1), planted(60, 2), SETTINGS, 2, 3)[0] for _ in range(2))
    assert one.booster.save_raw("json") == two.booster.save_raw("json")
    np.testing.assert_array_equal(one.prior, two.prior)


def test_a_ranker_of_other_features_is_refused(tmp_path: Path) -> None:
    learn(planted(0), planted(0), SETTINGS, 1, 3)[0].save(tmp_path)
    head = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(head.replace('"jaccard"', '"other"'))
    with pytest.raises(CorruptArtifact, match="other features"):
        Ranker.open(tmp_path)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_feature_that_copies_the_label_is_refused(sign: int) -> None:
    lists = planted(100)
    refuse_leak(lists)
    lists.matrix[:, 4] = sign * (lists.label + np.random.default_rng(0).normal(0, 0.05, len(lists.label)))
    with pytest.raises(GateRefused, match=FEATURES[4]):
        refuse_leak(lists)


def test_a_few_lucky_labels_are_no_leak() -> None:
    lists = planted(10)
    lists.matrix[:, 4] = lists.label
    refuse_leak(lists)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(4)
    good, bad = rng.integers(0, 9, 40).astype(np.float32), rng.integers(0, 7, 60).astype(np.float32)
    pairs = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
    assert area_under_roc(good, bad) == pytest.approx(pairs.mean())


def test_recall_and_ndcg_of_a_list_worked_by_hand() -> None:
    """Friends at ranks 1 and 3 of a list of four, a third friend not in the list."""
    matrix = np.zeros((4, len(FEATURES)), np.float32)
    lists = Lists(matrix, np.array([True, False, False, True]), np.array([0, 4]), np.array([3]))
    score = np.array([9, 8, 1, 2], np.float32)
    assert recall(lists, score, 2) == pytest.approx(1 / 2)
    assert recall(lists, score, 20) == pytest.approx(2 / 3)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(lists, score) == pytest.approx((1 + 1 / np.log2(4)) / ideal)
