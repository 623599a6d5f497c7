"""Promises of the greedy determinantal point process."""

import pytest

from gnn.blend.dpp import GreedyDPP
from tests.gnn.blend import brute, golden


@pytest.mark.parametrize("sliding", [False, True])
def test_picks_are_those_of_brute_force_on_1000_users(sliding: bool) -> None:
    """Where all that is left duplicates what is picked, gains may differ in the ninth digit, which rounding hides."""
    identical = 0
    for case in brute.cases(shapes=50, users=20, seed=21 + sliding):
        window = case.window if sliding else None
        picks = GreedyDPP(case.share, window)(case.relevance, case.embeddings, case.valid, case.picks)
        for i, found in enumerate(picks.tolist()):
            relevance, embeddings, valid, count = case.user(i, case.embeddings)
            gain = brute.determinant_gain(relevance, embeddings, case.share, window)
            identical += found == brute.greedy(gain, valid, count)
            assert not brute.differs(found, gain, valid, rounding=1e-7)
    assert identical >= 998


# theta 0.7, by log-determinants in float64, each window anew.
GOLDEN = {
    None: [19, 13, 10, 6, 18, 3, 5, 4],
    4: [19, 13, 10, 6, 9, 18, 14, 3],
    5: [19, 13, 10, 6, 18, 9, 3, 14],
}


@pytest.mark.parametrize("window", GOLDEN)
def test_golden_picks(window: int | None) -> None:
    assert GreedyDPP(0.7, window)(*golden.inputs(), 8).tolist() == [GOLDEN[window]]


@pytest.mark.graphs
@golden.in_file
def test_picks_are_those_of_the_shared_file_and_the_window_counts_the_candidate() -> None:
    shared = golden.shared_picks()
    assert GOLDEN[None] == shared["dpp_bruteforce"] == shared["dpp_fast"]
    assert GOLDEN[4] == shared["dpp_sw_bruteforce_last3"] == shared["dpp_sw_fast"]
    assert GOLDEN[5] == shared["dpp_sw_bruteforce_last4"]


def test_a_relevance_that_the_kernel_cannot_hold_is_refused() -> None:
    relevance, embeddings, valid = golden.inputs()
    with pytest.raises(ValueError, match="near \\[0, 1\\]"):
        GreedyDPP(0.7)(relevance * 1000, embeddings, valid, 3)


@pytest.mark.parametrize(("theta", "window", "told"), [(1.0, None, "theta: 1.0"), (0.5, 0, "window: 0")])
def test_settings_without_meaning_are_refused(theta: float, window: int | None, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        GreedyDPP(theta, window)
