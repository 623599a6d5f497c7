"""What the ranker sees of a pair: stored pair features, user features, and the columns derived from both.

Pair features are stored as float16, which has 11 significant bits and no value below 6e-8: scores that span decades are
stored as a scaled square root and turned into logarithms by `assemble`. Everything the ranker sees is a function of
stored values, so a score computed live equals the nightly one.
"""

import numpy as np
import numpy.typing as npt

PROXIMITY = ("common_neighbours", "resource_allocation", "fresh_allocation", "walk", "joint_walk")
"""The first columns of a pair, float16: those that are known where the candidate was found."""

PAIR_FEATURES = (
    *PROXIMITY,
    "embedding_dot",
    "factors",
    "factors_back",
    "shared_attributes",
    "attribute_lift",
    "attribute_affinity",
    "shared_affiliations",
    "affiliation_lift",
    "affiliation_affinity",
    "acted",
    "acted_on",
)
"""Columns stored for a pair, float16.

common_neighbours: log(1 + count). resource_allocation, fresh_allocation: SQUARE_SCALE * sqrt. walk, joint_walk:
WALK_SCALE * sqrt. embedding_dot: cosine. factors, factors_back: dot products of friendship factors, viewer on candidate
and candidate on viewer; for a viewer without friends factors is that of two towers, by setting. shared_*: counts of
shared attributes and affiliations. *_lift: sum over shared groups of log(friendship likelier than by chance).
*_affinity: how much more often the viewer's friends are in the candidate's groups than by chance; for a viewer without
friends, the candidate's friends in the viewer's groups. acted, acted_on: log(1 + interactions of viewer on candidate,
of candidate on viewer).
"""

USER_FEATURES = (
    "degree",
    "volume",
    "groups",
    "friend_degree",
    "days_since_joined",
    "days_since_friend",
    "friends_last_quarter",
    "friends_last_year",
)
"""Columns kept for a user, float32.

degree: friends. volume: friends + pull of groups, what a walker sees. groups: affiliations and attributes.
friend_degree: mean log(1 + degree) of friends. days_*: -1 unknown. friends_last_*: friendships of the last 90 and 365
days.
"""

SQUARE_SCALE = 64.0
WALK_SCALE = 1024.0
ALPHA = 0.15
"""Chance that a walk ends at each step."""
_P = {name: at for at, name in enumerate(PAIR_FEATURES)}
_U = {name: at for at, name in enumerate(USER_FEATURES)}

_DERIVED = (
    "jaccard",
    "salton",
    "log_allocation",
    "log_walk",
    "log_walk_back",
    "log_joint",
    "log_joint_back",
    "freshness",
)
FEATURES = (
    *PAIR_FEATURES,
    *_DERIVED,
    *(f"viewer_{name}" for name in USER_FEATURES),
    *(f"candidate_{name}" for name in USER_FEATURES),
)
"""Columns of the ranker's input, float32, in order."""

LEAST_ALLOCATION = 1e-4
LEAST_WALK = 1e-6

Float32 = npt.NDArray[np.float32]
Float16 = npt.NDArray[np.float16]


def assemble(pair: Float16, viewer: Float32, candidate: Float32) -> Float32:
    """The ranker's input, float32 [n, F], from pair [n, P], viewer [n, U] or [U], and candidate [n, U]."""
    rows = len(pair)
    p = pair.astype(np.float32)
    v = np.broadcast_to(viewer, candidate.shape)
    out = np.empty((rows, len(FEATURES)), np.float32)
    out[:, : len(PAIR_FEATURES)] = p
    at = len(PAIR_FEATURES)
    for column in _derived(p, v, candidate):
        out[:, at] = column
        at += 1
    out[:, at : at + len(USER_FEATURES)] = v
    out[:, at + len(USER_FEATURES) :] = candidate
    return out


def _derived(p: Float32, v: Float32, c: Float32) -> tuple[Float32, ...]:
    common = np.expm1(p[:, _P["common_neighbours"]])
    viewer_degree, candidate_degree = v[:, _U["degree"]], c[:, _U["degree"]]
    allocation = np.square(p[:, _P["resource_allocation"]] / SQUARE_SCALE)
    fresh = np.square(p[:, _P["fresh_allocation"]] / SQUARE_SCALE)
    walk = np.square(p[:, _P["walk"]] / WALK_SCALE)
    joint = np.square(p[:, _P["joint_walk"]] / WALK_SCALE)
    one = np.float32(1)
    turn = np.maximum(viewer_degree, one) / np.maximum(candidate_degree, one)
    turn_joint = np.maximum(v[:, _U["volume"]], one) / np.maximum(c[:, _U["volume"]], one)
    return (
        common / np.maximum(viewer_degree + candidate_degree - common, one),
        common / np.sqrt(np.maximum(viewer_degree * candidate_degree, one)),
        np.log(allocation + np.float32(LEAST_ALLOCATION)),
        np.log(walk + np.float32(LEAST_WALK)),
        np.log(walk * turn + np.float32(LEAST_WALK)),
        np.log(joint + np.float32(LEAST_WALK)),
        np.log(joint * turn_joint + np.float32(LEAST_WALK)),
        fresh / np.maximum(allocation, np.float32(LEAST_ALLOCATION)),
    )
