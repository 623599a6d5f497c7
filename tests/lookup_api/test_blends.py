"""Blends without torch pick whom those with torch pick."""

import numpy as np
import pytest

from gnn.blend.lists import BLENDS, blend_lists
from gnn.blend.lists import WINDOW as NIGHTLY_WINDOW
from infra.graph import Csr
from lookup_api.blends import PICKS, WINDOW, blended

PEOPLE, DIMENSIONS = 100, 16


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("name", sorted(BLENDS))
def test_the_first_places_are_those_of_the_nightly_blend(name: str, diversity: float) -> None:
    """Lists with duplicates, a zero vector, equal scores, and people in several groups."""
    draw = np.random.default_rng(3)
    for size in (1, 2, 7, 60, PEOPLE):
        scores = -np.sort(-draw.normal(0, 3, size)).astype(np.float32)
        vectors = draw.normal(size=(size, DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if size > 5:
            scores[3] = scores[4]
            vectors[5], vectors[6] = vectors[0], 0
        groups = [sorted(set(draw.integers(0, 12, draw.integers(0, 4)).tolist())) for _ in range(size)]
        owner = np.repeat(np.arange(size), [len(of) for of in groups])
        rows = Csr.from_pairs(size, owner, np.array([g for of in groups for g in of], np.int64))
        user, candidate = np.zeros(size, np.int32), np.arange(size, dtype=np.int32)
        nightly = blend_lists(name, diversity, user, candidate, scores, vectors, rows)
        live = blended(name, diversity, scores, vectors, groups)
        assert live[:PICKS].tolist() == nightly[:PICKS].tolist()
        assert sorted(live.tolist()) == list(range(size))


def test_none_keeps_the_order_and_the_window_is_the_nightly_one() -> None:
    scores = np.array([3, 2, 1], np.float32)
    assert blended("none", 0.5, scores, np.zeros((3, 2), np.float32), [(), (), ()]).tolist() == [0, 1, 2]
    assert WINDOW == NIGHTLY_WINDOW
