"""recall@k; known answers by counting on small sets."""

from typing import Any

import numpy as np
import pytest

from index import recall
from index.recall import kth_best, recall_at, sampled_rows
from tests.suites.index_backends import brute_force, clustered


class Answers:
    """Searches by brute force and then replaces some of what it found."""

    def __init__(self, vectors: Any, change: Any) -> None:
        self.vectors, self.change = vectors, change

    def search(self, queries: Any, k: int) -> Any:
        rows, scores = brute_force(self.vectors, queries, k)
        return self.change(rows.astype(np.int32)), scores.astype(np.float32)


def worst_instead(count: int) -> Any:
    def change(rows: Any) -> Any:
        rows[:, :count] = 0
        return rows

    return change


def missing(count: int) -> Any:
    def change(rows: Any) -> Any:
        rows[:, -count:] = -1
        return rows

    return change


def repeated(rows: Any) -> Any:
    return np.repeat(rows[:, :1], rows.shape[1], axis=1)


@pytest.mark.parametrize(
    ("change", "expected"), [(lambda rows: rows, 1.0), (missing(3), 0.7), (worst_instead(4), 0.6), (repeated, 0.1)]
)
def test_recall_is_the_share_of_the_best_that_was_found(change: Any, expected: float) -> None:
    vectors = clustered(600, 16, 1)
    vectors[0] = -vectors[1:].mean(axis=0)
    queries = np.arange(1, 400)
    assert recall_at(Answers(vectors, change), vectors, queries, 10) == pytest.approx(expected)


def test_of_many_equal_rows_any_are_right() -> None:
    vectors = np.repeat(clustered(3, 8, 1), 100, axis=0)
    last_of_equals = Answers(vectors, lambda rows: rows + 90)
    assert recall_at(last_of_equals, vectors, np.array([0, 100, 200]), 10) == 1


def test_k_is_at_most_the_number_of_rows() -> None:
    vectors = clustered(7, 8, 1)
    assert recall_at(Answers(vectors, lambda rows: rows), vectors, np.arange(7), 100) == 1
    assert recall_at(Answers(vectors, missing(1)), vectors, np.arange(7), 100) == pytest.approx(6 / 7)
    assert recall_at(Answers(vectors[:0], repeated), vectors[:0], sampled_rows(0, 9, 1), 100) == 1


def test_the_kth_best_is_the_same_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = clustered(500, 16, 1), clustered(20, 16, 2)
    _, expected = brute_force(vectors, queries, 12)
    for block in (16_384, 100, 7):
        monkeypatch.setattr(recall, "ROW_BLOCK", block)
        np.testing.assert_allclose(kth_best(vectors, queries, 12), expected[:, -1], atol=1e-6)


def test_the_sample_is_seeded_and_without_repetition() -> None:
    sample = sampled_rows(1000, 100, 5)
    assert len(np.unique(sample)) == 100
    np.testing.assert_array_equal(sample, sampled_rows(1000, 100, 5))
    assert not np.array_equal(sample, sampled_rows(1000, 100, 6))
    np.testing.assert_array_equal(sampled_rows(7, 100, 5), np.arange(7))
