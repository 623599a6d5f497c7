"""Blocks of ranked lists of any length through a blend, beside one list at a time."""

import numpy as np
import pytest
import torch

from gnn.blend.lists import BLENDS, blend_lists
from gnn.blend.utility import WeightedUtility
from infra.graph import Csr

LENGTHS = (7, 1, 30, 12, 30) * 30
PEOPLE = 90


def lists() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Csr]:
    rng = np.random.default_rng(4)
    user = np.repeat(np.arange(len(LENGTHS)) * 3, LENGTHS).astype(np.int32)
    candidate = np.concatenate([rng.permutation(PEOPLE)[:n] for n in LENGTHS]).astype(np.int32)
    score = np.concatenate([np.sort(rng.normal(-3, 2, n))[::-1] for n in LENGTHS]).astype(np.float32)
    vectors = rng.normal(size=(PEOPLE, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = Csr.from_pairs(PEOPLE, np.repeat(np.arange(PEOPLE - 1), 2), rng.integers(0, 9, 2 * (PEOPLE - 1)))
    return user, candidate, score, vectors, groups


@pytest.mark.parametrize("name", sorted(BLENDS))
def test_lists_in_a_block_are_those_blended_one_by_one(name: str) -> None:
    user, candidate, score, vectors, groups = lists()
    found = blend_lists(name, 0.4, user, candidate, score, vectors, groups)
    assert sorted(found) == list(range(len(user)))
    changed = 0
    for one in np.unique(user):
        at = np.flatnonzero(user == one)
        traits = torch.from_numpy(vectors[candidate[at]])[None]
        if name == "spacing":
            rows = [groups.row(c).tolist() for c in candidate[at]]
            width = max(1, *map(len, rows))
            traits = torch.tensor([[row + [-1] * (width - len(row)) for row in rows]])
        valid = torch.ones(1, len(at), dtype=torch.bool)
        relevance = torch.from_numpy(score[at].copy())[None]
        relevance = WeightedUtility([1.0]).utility(relevance, torch.zeros(1, len(at), 0), valid)
        picks = BLENDS[name](0.4)(relevance, traits, valid, len(at))[0].numpy()
        np.testing.assert_array_equal(found[at], at[picks])
        changed += not np.array_equal(found[at], at)
    assert changed > len(LENGTHS) / 3


def test_no_lists_stay_no_lists() -> None:
    none = np.zeros(0, np.int32)
    assert (
        len(blend_lists("ssd", 0.5, none, none, none.astype(np.float32), np.zeros((3, 2), np.float32), Csr.empty(3)))
        == 0
    )
