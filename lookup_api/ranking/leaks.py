"""Finds features that know the answer, before anything is learnt from them.

What a network tells, it tells in several ways: where one feature puts all held-out friends first, features of other
kinds do well too. A copy of the label does not depend on them. So each feature is held against those of other kinds,
list by list: on easy networks nothing is refused, and a copy shows although it is noisy or there for some users only.
"""

import numpy as np
import numpy.typing as npt

from infra.errors import GateRefused
from lookup_api.ranking.features import FEATURES, USER_FEATURES
from lookup_api.ranking.ranker_lists import Float64, Lists

KINDS = {
    "common neighbours": ("common_neighbours", "jaccard", "salton"),
    "allocation": ("resource_allocation", "fresh_allocation", "log_allocation", "freshness"),
    "walk": ("walk", "log_walk", "log_walk_back"),
    "joint walk": ("joint_walk", "log_joint", "log_joint_back"),
    "factors": ("factors", "factors_back"),
    "attributes": ("shared_attributes", "attribute_lift", "attribute_affinity"),
    "affiliations": ("shared_affiliations", "affiliation_lift", "affiliation_affinity"),
    "interactions": ("acted", "acted_on"),
    **{name: (f"viewer_{name}", f"candidate_{name}") for name in USER_FEATURES},
}
"""Features made of the same stored values, which a leak into one is in; a feature not named is a kind of its own."""

MIN_LABELS = 50
"""Held-out friends below which nothing is proven."""
NEAR_PERFECT = 0.97
"""Mean area under a list's ROC curve from which on a feature is suspected to be a noisy copy."""
TIMES_BETTER = 3.0
"""How many times fewer pairs it must put in the wrong order than the best feature of another kind."""
PLAIN = 0.99
"""Mean area of another kind from which on a noisy copy cannot be told from a feature of an easy network."""
TELLS = 0.65
"""Mean area from which on a feature tells anything at all."""
HARD, NEVER_HARD, HARDEST = 0.75, 0.9, 0.25
"""A list is hard where the telling features of other kinds have a smaller area than HARD in the median, or, up to
NEVER_HARD, where it is among the HARDEST share of lists."""
MIN_LISTS = 30
PERFECT_WHERE_HARD, PERFECT_WHERE_MISSED = 0.4, 0.9
"""Share of the hard lists, and of those in which the best feature of another kind is wrong about somebody, that only a
copy orders without a fault."""
SAMPLED_LISTS, SAMPLED_LABELS = 1_000, 5
"""Lists that are looked at, and held-out friends of each."""


def refuse_leak(lists: Lists) -> None:
    """Raises GateRefused naming the feature, if one knows which candidates are held-out friends."""
    told = lists.telling()
    if told.label.sum() < MIN_LABELS:
        return
    areas = list_areas(sample(told))
    areas = np.where(areas.mean(axis=0) < 0.5, 1 - areas, areas)
    kinds = _kinds()
    found = [(suspicion(areas, kinds, at), name) for at, name in enumerate(FEATURES)]
    suspected = [(*why, name) for why, name in found if why]
    if suspected:
        _, said, name = max(suspected, key=lambda one: one[0])
        raise GateRefused(
            f"leak: feature {name} knows which candidates are held-out friends: {said}",
            "No force passes this gate. Check that it is computed on the past view, without the held-out friendships.",
        )


def suspicion(areas: Float64, kinds: npt.NDArray[np.int64], at: int) -> tuple[float, str] | None:
    """How much a feature puts right, and in words, where only a copy of the label could; else None.

    areas: of all features [L, F], turned so that more is better. kinds: a number for each feature [F].
    """
    others = areas[:, kinds != kinds[at]]
    own, means = areas[:, at], others.mean(axis=0)
    mean, best = float(own.mean()), float(means.max(initial=0.5))
    if mean >= NEAR_PERFECT and best < PLAIN and (1 - mean) * TIMES_BETTER <= 1 - best:
        return mean, f"it orders {mean:.2%} of the pairs right, the best feature of another kind {best:.2%}"
    hard, missed = _hard(others[:, means > TELLS]), others[:, means.argmax()] < 1
    for lists, most in ((hard, PERFECT_WHERE_HARD), (missed, PERFECT_WHERE_MISSED)):
        share = float((own[lists] == 1).mean()) if lists.sum() >= MIN_LISTS else 0.0
        if share >= most:
            return share, f"it puts all of them first in {share:.0%} of {lists.sum():,} lists in which others fail"
    return None


def _hard(telling: Float64) -> npt.NDArray[np.bool_]:
    """The lists that features of other kinds [L, G] order badly; all, where there are none."""
    if not telling.shape[1]:
        return np.ones(len(telling), bool)
    usual = np.median(telling, axis=1)
    return np.asarray(usual < max(HARD, min(float(np.quantile(usual, HARDEST)), NEVER_HARD)))


def _kinds() -> npt.NDArray[np.int64]:
    names = {name: kind for kind, names in KINDS.items() for name in names}
    return np.unique([names.get(name, name) for name in FEATURES], return_inverse=True)[1]


def sample(lists: Lists) -> Lists:
    """At most SAMPLED_LISTS of the lists, evenly."""
    step = -(-len(lists.held) // SAMPLED_LISTS)
    return lists.where(np.arange(len(lists.held)) % step == 0)


def list_areas(lists: Lists) -> Float64:
    """Chance that a held-out friend is above another candidate of the list, ties counting half, float64 [L, F].

    This is the area under the list's ROC curve (Mann-Whitney). Every list must be telling. Of the held-out friends of a
    list SAMPLED_LABELS are looked at.
    """
    query = lists.query
    label = np.flatnonzero(lists.label)
    label = label[np.arange(len(label)) - np.searchsorted(query[label], query[label]) < SAMPLED_LABELS]
    sizes = np.diff(lists.offsets)[query[label]]
    first = np.cumsum(sizes) - sizes
    row = np.arange(sizes.sum()) + np.repeat(lists.offsets[query[label]] - first, sizes)
    other = ~lists.label[row]
    others = np.add.reduceat(other, first, dtype=np.float64)
    of_list, labels = np.unique(query[label], return_counts=True)
    areas = np.empty((len(of_list), lists.matrix.shape[1]))
    for at, column in enumerate(lists.matrix.T):
        own, theirs = np.repeat(column[label], sizes), column[row]
        above = ((own > theirs) + 0.5 * (own == theirs)) * other
        share = np.add.reduceat(above, first) / others
        areas[:, at] = np.add.reduceat(share, np.cumsum(labels) - labels) / labels
    return areas
