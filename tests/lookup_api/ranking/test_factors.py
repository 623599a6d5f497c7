"""Factors of a few users are solved anew against everybody else's."""

import numpy as np

from infra.graph import Csr
from lookup_api.ranking.factors import factorise, refit
from tests.suites.planted import planted_graph


def test_who_joined_gets_the_factors_that_a_whole_night_would_give_them() -> None:
    """Up to rounds: the others' factors know the friendship already, so what is left is one row of a least squares."""
    friends = planted_graph().now.connections
    viewers, candidates = factorise(friends, 17, 1)
    rows = np.array([4, 100, 239])
    expected = [of[rows] @ other.T for of, other in ((viewers, candidates), (candidates, viewers))]
    before = viewers.copy()
    viewers[rows] = candidates[rows] = 0
    refit(viewers, candidates, friends, rows)
    found = [of[rows] @ other.T for of, other in ((viewers, candidates), (candidates, viewers))]
    for one, other in zip(np.concatenate(found), np.concatenate(expected), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.95
    others = np.setdiff1d(np.arange(len(viewers)), rows)
    np.testing.assert_array_equal(viewers[others], before[others])


def test_who_has_no_friend_left_has_no_factors() -> None:
    viewers, candidates = (np.ones((3, 4), np.float32) for _ in range(2))
    friends = Csr.from_pairs(3, np.array([1, 2]), np.array([2, 1]))
    refit(viewers, candidates, friends, np.array([0]))
    assert not viewers[0].any()
    assert not candidates[0].any()
    assert viewers[1:].all()
