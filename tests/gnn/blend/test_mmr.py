"""Promises of Maximal Marginal Relevance."""

import pytest

from gnn.blend.mmr import MaximalMarginalRelevance
from tests.gnn.blend import brute, golden


def test_picks_are_those_of_brute_force_on_400_users() -> None:
    for case in brute.cases(shapes=20, users=20, seed=31):
        picks = MaximalMarginalRelevance(case.share)(case.relevance, case.embeddings, case.valid, case.picks)
        for i, found in enumerate(picks.tolist()):
            assert found == brute.mmr(*case.user(i, case.embeddings), case.share)


GOLDEN = [19, 9, 10, 18, 13, 14, 6, 3]  # share 0.7, by brute force in float64


def test_golden_picks() -> None:
    assert MaximalMarginalRelevance(0.7)(*golden.inputs(), 8).tolist() == [GOLDEN]


@pytest.mark.graphs
@golden.in_file
def test_picks_are_those_of_the_shared_file() -> None:
    assert golden.shared_picks()["mmr"] == GOLDEN


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share: 1\.5"):
        MaximalMarginalRelevance(1.5)
