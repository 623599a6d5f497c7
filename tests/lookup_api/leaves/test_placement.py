"""Every version of a model has a few leaves of its own, evenly drawn, and a leaf that comes or goes moves few."""

from collections import Counter

import numpy as np
import pytest

from infra.model_routes import ModelRef
from lookup_api.leaves.placement import shard_of

LEAVES = [f"10.0.0.{at}:8201" for at in range(8)]
MODELS = [ModelRef(name="model", version=str(at)) for at in range(5600)]


def test_all_28_pairs_of_8_leaves_are_drawn_evenly() -> None:
    pairs = Counter(frozenset(shard_of(model, LEAVES, 2)) for model in MODELS)
    assert len(pairs) == 28
    counts = np.array(list(pairs.values()))
    assert ((counts - 200) ** 2 / 200).sum() < 55.5, "chi squared, 27 degrees of freedom, p = 0.001"


def test_the_order_of_the_leaves_does_not_matter_and_the_best_is_first_evenly() -> None:
    for model in MODELS[:50]:
        assert shard_of(model, LEAVES, 2) == shard_of(model, LEAVES[::-1], 2)
    first = Counter(shard_of(model, LEAVES, 2)[0] for model in MODELS)
    assert ((np.array([first[leaf] for leaf in LEAVES]) - 700) ** 2 / 700).sum() < 24.3, "7 degrees, p = 0.001"


def test_a_leaf_that_goes_moves_only_what_it_had() -> None:
    for model in MODELS[:500]:
        before, after = shard_of(model, LEAVES, 2), shard_of(model, LEAVES[1:], 2)
        assert after == before if LEAVES[0] not in before else set(before) - {LEAVES[0]} < set(after)


@pytest.mark.parametrize(("leaves", "size", "found"), [(1, 2, 1), (8, 1, 1), (8, 8, 8), (0, 2, 0)])
def test_a_shard_has_no_more_leaves_than_there_are(leaves: int, size: int, found: int) -> None:
    assert len(set(shard_of(MODELS[0], LEAVES[:leaves], size))) == found


def test_placement_is_the_same_on_every_machine_and_day() -> None:
    model = ModelRef(name="nightly", version="20260101")
    assert shard_of(model, LEAVES, 3) == (LEAVES[6], LEAVES[1], LEAVES[4])
