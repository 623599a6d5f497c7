"""Promises of weighted utility."""

import numpy as np
import pytest
import torch

from gnn.blend.utility import WeightedUtility
from tests.gnn.blend import brute

WEIGHTS = [1.0, 0.5, -0.25]


def by_hand(scores: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """scores float64 [N, 3], one user: [N]."""
    total = np.zeros(len(scores))
    for weight, column in zip(WEIGHTS, scores.T, strict=True):
        seen = column[valid]
        if len(seen) and seen.max() > seen.min():
            total += weight * (column - seen.min()) / (seen.max() - seen.min())
    return total


def test_utility_and_picks_are_those_worked_out_by_hand() -> None:
    for case in brute.cases(shapes=20, users=10, seed=51):
        others = torch.stack([case.relevance.flip(1) * 40 - 7, case.groups[:, :, 0].float()], dim=2)
        blend = WeightedUtility(WEIGHTS)
        picks = blend(case.relevance, others, case.valid, case.picks).tolist()
        utility = blend.utility(case.relevance, others, case.valid)
        for i, found in enumerate(picks):
            scores = torch.cat([case.relevance[i, :, None], others[i]], dim=1).double().numpy()
            valid = case.valid[i].numpy()
            expected = np.where(valid, by_hand(scores, valid), 0)
            assert np.allclose(utility[i], expected, atol=1e-6)
            assert found == brute.greedy(lambda _, gains=expected: gains, valid, case.picks)


def test_scale_and_shift_of_an_objective_change_nothing() -> None:
    case = brute.cases(shapes=5, users=10, seed=52)[-1]
    others = torch.rand(*case.relevance.shape, 2, generator=torch.Generator().manual_seed(1))
    blend = WeightedUtility(WEIGHTS)
    assert torch.allclose(
        blend.utility(case.relevance, others, case.valid),
        blend.utility(case.relevance * 8 + 3, others * 0.125 - 1, case.valid),
        atol=1e-5,
    )


@pytest.mark.parametrize("objectives", [0, 1, 3])
def test_another_number_of_objectives_than_weights_is_refused(objectives: int) -> None:
    with pytest.raises(ValueError, match=f"{objectives + 1} objectives with the relevance, 3 weights"):
        WeightedUtility(WEIGHTS)(torch.zeros(1, 2), torch.zeros(1, 2, objectives), torch.ones(1, 2).bool(), 1)


def test_no_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weights: none given"):
        WeightedUtility([])
