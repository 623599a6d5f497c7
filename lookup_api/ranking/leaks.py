"""Finds features that know the answer, before anything is learnt from them."""

import numpy as np

from infra.errors import GateRefused
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker_lists import Float32, Lists


def refuse_leak(lists: Lists, most: float = 0.999, labels: int = 50, sampled: int = 200_000) -> None:
    """Raises GateRefused if one feature alone tells held-out friends from others, which only a leak of the label can.

    most: the area under the ROC curve from which on a feature is a leak. labels: fewer than these prove nothing.
    """
    positive = lists.matrix[lists.label]
    if len(positive) < labels:
        return
    others = np.flatnonzero(~lists.label)
    negative = lists.matrix[others[:: max(1, len(others) // sampled)]]
    for at, name in enumerate(FEATURES):
        area = area_under_roc(positive[:, at], negative[:, at])
        if max(area, 1 - area) > most:
            raise GateRefused(
                f"ranker: feature {name} alone separates held-out friendships from others (AUC {area:.5f})",
                "It knows the answer: check that it is computed on the past view without the held-out friendships.",
            )


def area_under_roc(positive: Float32, negative: Float32) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / 2 / len(negative))
