"""Promises of SSD with soft spacing."""

import pytest
import torch
from torch import Tensor

from gnn.blend.spaced_spectrum import SpacedSpectrum
from gnn.blend.spacing import SoftSpacing
from gnn.blend.ssd import SlidingSpectrum
from tests.gnn.blend import brute


def order_of(worth: Tensor, picks: int) -> list[int]:
    """The places of the picks, and -1 after the last."""
    order = worth.argsort(descending=True, stable=True)[:picks]
    found = [int(place) for place in order if worth[place] > 0]
    return found + [-1] * (picks - len(found))


def lists(case: brute.Case) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """Each user's valid candidates."""
    return [
        (i, case.relevance[i][valid], case.embeddings[i][valid], case.groups[i][valid])
        for i, valid in enumerate(case.valid)
    ]


def test_picks_are_those_of_brute_force_on_600_lists() -> None:
    for case in brute.cases(shapes=30, users=20, seed=71):
        window, gamma, spacing = case.window + 1, 2 * case.share, 0.1 + case.share / 2
        blend = SpacedSpectrum(gamma, spacing, window)
        for _, utility, vectors, groups in lists(case):
            arrays = utility.double().numpy(), vectors.double().numpy(), groups.numpy(), torch.ones(len(groups)).bool()
            wanted = brute.spaced_spectrum(*arrays, case.picks, gamma, spacing, window)
            assert order_of(blend(utility, vectors, groups, case.picks), case.picks) == wanted


def test_without_one_of_its_terms_it_is_the_other_blend() -> None:
    for case in brute.cases(shapes=10, users=10, seed=81):
        window = case.window + 1
        spectrum = SlidingSpectrum(0.7, window)(case.relevance, case.embeddings, case.valid, case.picks)
        spacing = SoftSpacing(0.2, window)(case.relevance, case.groups, case.valid, case.picks)
        for i, utility, vectors, groups in lists(case):
            places = [*case.valid[i].nonzero()[:, 0].tolist(), -1]
            for blend, wanted in (
                (SpacedSpectrum(0.7, 0, window), spectrum),
                (SpacedSpectrum(0, 0.2, window), spacing),
            ):
                found = order_of(blend(utility, vectors, groups, case.picks), case.picks)
                assert [places[one] for one in found] == wanted[i].tolist()


def test_the_first_pick_is_worth_most_and_who_is_not_picked_nothing() -> None:
    utility, vectors = torch.tensor([0.1, 0.9, 0.5, 0.3]), torch.zeros(4, 2)
    none = torch.full((4, 1), -1)
    assert SpacedSpectrum()(utility, vectors, none, 3).tolist() == [0, 3, 2, 1]
    assert SpacedSpectrum()(utility, vectors, none, 9).tolist() == [6, 9, 8, 7]
    assert SpacedSpectrum()(utility[:0], vectors[:0], none[:0], 3).tolist() == []


@pytest.mark.parametrize(("gamma", "spacing", "window"), [(-0.1, 0.1, 4), (0.1, -0.1, 4), (0.1, 0.1, 1)])
def test_settings_without_meaning_are_refused(gamma: float, spacing: float, window: int) -> None:
    with pytest.raises(ValueError, match="gamma"):
        SpacedSpectrum(gamma, spacing, window)
