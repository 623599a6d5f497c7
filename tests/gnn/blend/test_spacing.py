"""Promises of soft spacing."""

import pytest
import torch

from gnn.blend.spacing import SoftSpacing
from tests.gnn.blend import brute


@pytest.mark.parametrize("sliding", [False, True])
def test_picks_are_those_of_brute_force_on_400_users(sliding: bool) -> None:
    for case in brute.cases(shapes=20, users=20, seed=41 + sliding):
        window = case.window if sliding else None
        picks = SoftSpacing(case.share, window)(case.relevance, case.groups, case.valid, case.picks)
        for i, found in enumerate(picks.tolist()):
            assert found == brute.spacing(*case.user(i, case.groups), case.share, window)


def test_a_group_is_kept_apart_by_as_much_as_the_weight_says() -> None:
    """Two of a company lead by 0.2 and 0.1. The second waits while 0.15 / d is more than its lead."""
    relevance = torch.tensor([[1.0, 0.9, 0.8, 0.7]])
    groups = torch.tensor([[[7], [7], [-1], [3]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert SoftSpacing(0.05, 10)(relevance, groups, valid, 4).tolist() == [[0, 1, 2, 3]]
    assert SoftSpacing(0.15, 10)(relevance, groups, valid, 4).tolist() == [[0, 2, 1, 3]]  # 0.75 at d = 1, 0.825 at 2
    assert SoftSpacing(0.5, 10)(relevance, groups, valid, 4).tolist() == [[0, 2, 3, 1]]
    assert SoftSpacing(0.5, 2)(relevance, groups, valid, 4).tolist() == [[0, 2, 1, 3]]  # forgotten after one


def test_no_group_is_shared_with_nobody() -> None:
    relevance, groups = torch.tensor([[3.0, 2.0, 1.0]]), torch.full((1, 3, 2), -1)
    assert SoftSpacing(9.0, None)(relevance, groups, torch.ones(1, 3, dtype=torch.bool), 3).tolist() == [[0, 1, 2]]


def test_groups_that_are_no_integers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.int64"):
        SoftSpacing()(torch.zeros(1, 2), torch.zeros(1, 2, 1), torch.ones(1, 2, dtype=torch.bool), 1)
