"""A feature that copies the label is named and refused, noisy or for some users only; what a network tells is not."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from infra.errors import GateRefused
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.leaks import MIN_LABELS, list_areas, refuse_leak
from lookup_api.ranking.ranker_lists import Lists
from tests.suites.planted_lists import planted

PLANTED = FEATURES.index("attribute_affinity")


def network(queries: int, ease: float, seed: int = 3, size: int = 100) -> Lists:
    """Lists in which features of several kinds tell the same truth, the better the larger `ease`, each with noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(queries * size, len(FEATURES))).astype(np.float32)
    truth = rng.normal(size=len(matrix))
    for name in ("common_neighbours", "log_walk", "log_joint", "embedding_dot", "factors"):
        matrix[:, FEATURES.index(name)] += ease * truth
    rank = (-truth.reshape(queries, size)).argsort(1).argsort(1).reshape(-1)
    offsets = np.arange(queries + 1, dtype=np.int64) * size
    return Lists(matrix, rank < 2, offsets, np.full(queries, 2, np.int64))


def copies(lists: Lists) -> np.ndarray:
    return lists.label.astype(np.float32)


def reversed_copies(lists: Lists) -> np.ndarray:
    return -copies(lists)


def blurred_copies(lists: Lists) -> np.ndarray:
    return copies(lists) + np.random.default_rng(0).normal(0, 0.05, len(lists.label)).astype(np.float32)


def flipped_copies(lists: Lists) -> np.ndarray:
    """One in a hundred is wrong."""
    return copies(lists) != (np.random.default_rng(0).random(len(lists.label)) < 0.01)


def copies_for_half(lists: Lists) -> np.ndarray:
    """Only every second user's."""
    return np.where(lists.query % 2 == 0, copies(lists), lists.matrix[:, PLANTED])


LEAKS = [copies, reversed_copies, blurred_copies, flipped_copies, copies_for_half]


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("ease", [0.0, 0.5, 1.0])
def test_a_copy_of_the_label_is_refused_by_its_name(leak: Callable[[Lists], np.ndarray], ease: float) -> None:
    lists = network(200, ease)
    refuse_leak(lists)
    lists.matrix[:, PLANTED] = leak(lists)
    with pytest.raises(GateRefused, match="leak: feature attribute_affinity knows") as caught:
        refuse_leak(lists)
    assert caught.value.exit_code == 3
    assert "past view" in caught.value.fix


@pytest.mark.parametrize("ease", [2.0, 5.0])
def test_an_exact_copy_is_refused_on_an_easy_network_too(ease: float) -> None:
    lists = network(300, ease)
    lists.matrix[:, PLANTED] = copies(lists)
    with pytest.raises(GateRefused, match="attribute_affinity"):
        refuse_leak(lists)


@pytest.mark.parametrize("ease", [0.0, 0.5, 1.0, 2.0, 5.0, 20.0, 1000.0])
def test_a_network_that_tells_its_friendships_in_several_ways_is_no_leak(ease: float) -> None:
    """Even where each way puts nearly every held-out friend first."""
    refuse_leak(network(300, ease))


@pytest.mark.parametrize("seed", range(5))
def test_one_strong_feature_is_no_leak(seed: int) -> None:
    refuse_leak(planted(300, seed))


def test_interactions_that_foretell_every_fourth_friendship_are_no_leak() -> None:
    lists = network(300, 1.0)
    acted = FEATURES.index("acted")
    lists.matrix[:, acted] = lists.label & (np.random.default_rng(1).random(len(lists.label)) < 0.25)
    refuse_leak(lists)


def test_a_few_lucky_labels_are_no_leak() -> None:
    lists = network(MIN_LABELS // 2 - 1, 1.0)
    lists.matrix[:, PLANTED] = copies(lists)
    refuse_leak(lists)
    refuse_leak(network(0, 1.0))


def test_areas_are_the_shares_of_pairs_in_order() -> None:
    """Every pair of a held-out friend and another candidate of the list, one by one."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(4, 12, 30)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    matrix = rng.integers(0, 5, (offsets[-1], len(FEATURES))).astype(np.float32)
    label = np.zeros(offsets[-1], bool)
    for first, size in zip(offsets, sizes, strict=False):
        label[first + rng.choice(size, rng.integers(1, min(size, 6)), replace=False)] = True
    areas = list_areas(Lists(matrix, label, offsets, np.ones(30, np.int64)))
    for at, (first, last) in enumerate(itertools.pairwise(offsets)):
        good, bad = (matrix[first:last][label[first:last] == side] for side in (True, False))
        pairs = (good[:, None] > bad) + 0.5 * (good[:, None] == bad)
        np.testing.assert_allclose(areas[at], pairs.mean(axis=(0, 1)))
