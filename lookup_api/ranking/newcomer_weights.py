"""Learns how people without friends choose: the weights of `newcomers`, by the listwise fit of every ranker's prior."""

import numpy as np

from lookup_api.ranking.newcomers import DEFAULTS, Newcomers
from lookup_api.ranking.ranker_lists import Lists
from lookup_api.ranking.ranker_prior import MIN_LISTS, fit_prior

STRENGTH = 10.0
"""Curvature that holds each weight at its default, in the unit of one user's list."""
NOT_LEARNT = ("embedding_dot", "acted", "acted_on")
"""Columns that the lists to learn from say nothing about; they keep their defaults."""


def learn(lists: Lists) -> Newcomers:
    """Weights from lists of users who were made newcomers, whose matrix is a `design`; the defaults where too few of
    the lists tell anything."""
    weights = Newcomers.by_default().weights
    told = lists.telling()
    if len(told.held) >= MIN_LISTS:
        columns = np.array([at for at, name in enumerate(DEFAULTS) if name not in NOT_LEARNT])
        weights[columns] = fit_prior(told, columns, weights[columns], STRENGTH)
    return Newcomers(weights, {"lists": len(told.held), "labels": int(told.label.sum())})
