"""The linear part of every ranker.

A softmax over a user's candidates (a conditional logit, McFadden 1974; ListNet's top-one loss, Cao et al., ICML 2007)
whose weights are drawn towards defaults that hold on many networks: with few labels it stays near them.
"""

import numpy as np
import numpy.typing as npt

from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker_lists import Float64, Lists

PRIOR = {
    "log_joint": 0.5,
    "log_joint_back": 0.0,
    "log_walk": 0.3,
    "log_walk_back": 0.2,
    "log_allocation": 0.0,
    "common_neighbours": 0.8,
    "salton": 0.0,
    "attribute_lift": 0.0,
    "attribute_affinity": 0.0,
    "affiliation_lift": 0.0,
    "affiliation_affinity": 0.0,
    "embedding_dot": 0.5,
    "factors": 0.3,
    "factors_back": 0.3,
}
"""Default weights of the linear prior; only these columns are part of it."""
PRIOR_STRENGTH = 3.0
"""Curvature that holds each weight at its default, in the unit of one user's list."""
MIN_LISTS = 20
"""Lists with a held-out friend below which the defaults are kept and nothing is learnt above them."""


def learn_prior(told: Lists) -> Float64:
    """Weights float64 [F] learnt on lists that tell something; the defaults where they are too few."""
    prior = default_prior()
    if len(told.held) >= MIN_LISTS:
        columns = np.array([FEATURES.index(name) for name in PRIOR])
        prior[columns] = fit_prior(told, columns, prior[columns], PRIOR_STRENGTH)
    return prior


def default_prior() -> Float64:
    return np.array([PRIOR.get(name, 0.0) for name in FEATURES])


def fit_prior(lists: Lists, columns: npt.NDArray[np.int64], start: Float64, strength: float) -> Float64:
    """Weights of `columns` by Newton's method on the listwise softmax loss, held at `start` by a quadratic penalty.

    A list counts as the square root of its held-out friends: more labels tell more, but not in proportion.
    """
    x = lists.matrix[:, columns].astype(np.float64)
    q, sizes = lists.query, np.diff(lists.offsets)
    first = lists.offsets[:-1]
    x -= (np.add.reduceat(x, first) / sizes[:, None])[q]
    hits = np.add.reduceat(lists.label.astype(np.float64), first)
    share = lists.label / np.sqrt(hits)[q]
    total = np.sqrt(hits)

    def loss(w: Float64) -> tuple[float, Float64]:
        s = x @ w
        top = np.maximum.reduceat(s, first)
        e = np.exp(s - top[q])
        z = np.add.reduceat(e, first)
        value = (total * (top + np.log(z))).sum() - share @ s + 0.5 * strength * np.square(w - start).sum()
        return float(value), e / z[q]

    w = start.copy()
    value, p = loss(w)
    for _ in range(30):
        pull = total[q] * p
        gradient = x.T @ (pull - share) + strength * (w - start)
        mean = np.add.reduceat(x * p[:, None], first)
        curvature = x.T @ (x * pull[:, None]) - (mean * total[:, None]).T @ mean + strength * np.eye(len(w))
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (better := loss(w - size * step))[0] >= value and size > 1e-4:
            size /= 2
        if better[0] >= value:
            break
        w, gain = w - size * step, value - better[0]
        value, p = better
        if gain < 1e-7 * abs(value):
            break
    return w
