"""What the ranker sees of a pair that the night did not measure, and the order of a list that is made live.

Stored pairs go through the very functions of the nightly rank stage (features.assemble, RankingModel.score, exposure
prices, top_per_user), so a live score is the nightly one. Of a pair that is not stored only what the tables tell is
known; the other columns take their default, which is no evidence. Pure numpy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookup_api.ranking.features import ALPHA, PAIR_FEATURES, SQUARE_SCALE, USER_FEATURES, WALK_SCALE
from lookup_api.ranking.top import top_per_user

KNOWN_LIVE = (
    "common_neighbours",
    "resource_allocation",
    "fresh_allocation",
    "walk",
    "joint_walk",
    "embedding_dot",
    "shared_attributes",
)
"""Columns of a pair that are measured or estimated live; zero, no evidence, is the default of the others.

The ranker weighs a walk against what else it knows, so a walk that is simply zero would turn shared friends against a
candidate. It is estimated by its first two steps, and for the later ones by where every walk ends up.
"""
SECOND_STEP = ALPHA * (1 - ALPHA) ** 2
"""What the friends of friends get of a walk when it reaches them first."""
LATER_STEPS = (1 - ALPHA) ** 3
"""What is left of it then."""
STALE_DEFAULTS = {"days_since_friend": -1.0, "friends_last_quarter": 0.0, "friends_last_year": 0.0}
"""User features that say how things stood on the day of the release, and what they are taken for when it is old."""
DEPTH = 100
"""Best by score that are ordered again by exposure, as at night."""

Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_AT = {name: at for at, name in enumerate(PAIR_FEATURES)}
_USER = {name: at for at, name in enumerate(USER_FEATURES)}


@dataclass(frozen=True)
class PairFacts:
    """What is known of n pairs of one viewer: common int64 [n] and allocation float32 [n] over friend lists
    (near_friends), cosine float32 [n] of the embeddings, shared int64 [n] attributes."""

    common: Int64
    allocation: Float32
    cosine: Float32
    shared: Int64


def measured_live(facts: PairFacts, viewer: Float32, candidates: Float32, entries: int, fresh: float) -> Float16:
    """Pair features float16 [n, P] of pairs that are not stored.

    viewer, candidates: user features float32 [U] and [n, U]. entries: of everyone's friend lists together. fresh: share
    of the allocation that is fresh. Pure of each pair: who else is asked about makes no difference.
    """
    degree, theirs = max(float(viewer[_USER["degree"]]), 1.0), candidates[:, _USER["degree"]]
    walk = SECOND_STEP * facts.allocation / degree + LATER_STEPS * theirs / max(entries, 1)
    joint = walk * degree / max(float(viewer[_USER["volume"]]), degree)
    columns: tuple[npt.NDArray[Any], ...] = (
        np.log1p(facts.common),
        SQUARE_SCALE * np.sqrt(facts.allocation),
        SQUARE_SCALE * np.sqrt(fresh * facts.allocation),
        WALK_SCALE * np.sqrt(walk),
        WALK_SCALE * np.sqrt(joint),
        facts.cosine,
        facts.shared,
    )
    out = np.zeros((len(theirs), len(PAIR_FEATURES)), np.float16)
    for name, column in zip(KNOWN_LIVE, columns, strict=True):
        out[:, _AT[name]] = column
    return out


def fresh_share(stored: Float16) -> float:
    """Share of the resource allocation of stored pairs float16 [n, P] that is fresh; 1 where there is none."""
    squares = np.square(stored[:, [_AT["fresh_allocation"], _AT["resource_allocation"]]].astype(np.float64)).sum(axis=0)
    return float(squares[0] / squares[1]) if squares[1] else 1.0


def shared_attributes(viewer: Int32, candidates: Int32) -> Int64:
    """How many of their known attributes two people share: codes int32 [A] and [n, A], -1 where missing."""
    return np.asarray(((candidates == viewer) & (viewer >= 0)).sum(axis=1), np.int64)


def newcomer_features(friends: list[int]) -> Float32:
    """USER_FEATURES float32 [U] of somebody the release does not know, who befriended people with so many friends."""
    out = np.zeros(len(USER_FEATURES), np.float32)
    for name in ("days_since_joined", "days_since_friend"):
        out[_USER[name]] = -1
    if friends:
        out[_USER["degree"]] = out[_USER["volume"]] = len(friends)
        out[_USER["friend_degree"]] = np.log1p(friends).mean()
    return out


def forget_stale(users: Float32) -> Float32:
    """The same user features float32 [..., U], those that an old release gets wrong at their defaults."""
    out = users.copy()
    for name, value in STALE_DEFAULTS.items():
        out[..., _USER[name]] = value
    return out


def shown_order(ids: Int64, scores: Float32, prices: Float32, settled: bool, k: int) -> Int64:
    """Places of the best k, in the order in which they are shown. Raises PymkError for scores that are not finite.

    prices float32 [n]: what exposure takes; settled: whether the viewer pays it, as whoever has friends does.
    """
    one = np.zeros(len(ids), np.int32)
    best = top_per_user(one, ids, scores, max(k, DEPTH)).order  # type: ignore[arg-type]
    if not settled:
        return best[:k]
    again = top_per_user(one[: len(best)], ids[best], scores[best] - prices[best], k)  # type: ignore[arg-type]
    return best[again.order]
