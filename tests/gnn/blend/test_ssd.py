"""Promises of Sliding Spectrum Decomposition."""

import pytest
import torch

from gnn.blend.ssd import SlidingSpectrum
from tests.gnn.blend import brute, golden


@pytest.mark.parametrize("sliding", [False, True])
def test_picks_are_those_of_brute_force_on_1000_users(sliding: bool) -> None:
    for case in brute.cases(shapes=50, users=20, seed=11 + sliding):
        window, gamma = case.window if sliding else None, 2 * case.share
        picks = SlidingSpectrum(gamma, window)(case.relevance, case.embeddings, case.valid, case.picks)
        for i, found in enumerate(picks.tolist()):
            assert found == brute.ssd(*case.user(i, case.embeddings), gamma, window)


# By volumes from singular values in float64, each window anew.
GOLDEN = {
    (0.5, None): [19, 13, 10, 18, 14, 9, 6, 5],
    (0.5, 4): [19, 13, 10, 18, 9, 14, 6, 5],
    (3.0, None): [19, 10, 13, 6, 5, 3, 18, 14],
    (3.0, 4): [19, 10, 13, 6, 9, 14, 18, 3, 4, 12, 0, 16],
}


@pytest.mark.parametrize(("gamma", "window"), GOLDEN)
def test_golden_picks(gamma: float, window: int | None) -> None:
    expected = GOLDEN[gamma, window]
    assert SlidingSpectrum(gamma, window)(*golden.inputs(), len(expected)).tolist() == [expected]


@pytest.mark.graphs
@golden.in_file
def test_picks_are_those_of_the_shared_file() -> None:
    shared = golden.shared_picks()
    assert GOLDEN[0.5, None] == shared["ssd_nowindow_bruteforce"]
    assert GOLDEN[0.5, 4] == shared["ssd_window4_bruteforce"]
    assert GOLDEN[3.0, None] == shared["gamma3"]["ssd_nowindow_brute_k8"]
    assert GOLDEN[3.0, 4] == shared["gamma3"]["ssd_exact_window4_k12"]


def test_the_window_is_exact_after_many_picks() -> None:
    """200 picks, window 6: an error that is carried along would show."""
    draw = torch.Generator().manual_seed(3)
    relevance = torch.rand(1, 300, generator=draw)
    embeddings = torch.nn.functional.normalize(torch.randn(1, 300, 16, generator=draw), dim=2)
    embeddings[0, ::7] = embeddings[0, 1]
    valid = torch.ones(1, 300, dtype=torch.bool)
    found = SlidingSpectrum(2.0, 6)(relevance, embeddings, valid, 200)[0].tolist()
    arguments = relevance[0].double().numpy(), embeddings[0].double().numpy(), valid[0].numpy()
    assert found == brute.ssd(*arguments, 200, 2.0, 6)


def test_relevance_alone_decides_while_a_duplicate_is_in_the_window() -> None:
    embeddings = torch.eye(4)[[0, 0, 1, 1, 2]][None]
    relevance = torch.tensor([[1.0, 0.99, 0.2, 0.1, 0.15]])
    valid = torch.ones(1, 5, dtype=torch.bool)
    assert SlidingSpectrum(0.1, None)(relevance, embeddings, valid, 5).tolist() == [[0, 1, 2, 4, 3]]
    # With 0.1 more for what is new: 3 would come before 4 if the duplicate pair still counted.
    assert SlidingSpectrum(0.1, 2)(relevance, embeddings, valid, 5).tolist() == [[0, 1, 2, 4, 3]]


@pytest.mark.parametrize(("gamma", "window", "told"), [(-0.1, 3, "gamma: -0.1"), (0.5, 0, "window: 0")])
def test_settings_without_meaning_are_refused(gamma: float, window: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SlidingSpectrum(gamma, window)
