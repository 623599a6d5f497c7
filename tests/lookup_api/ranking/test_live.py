"""What is estimated of a pair that the night did not measure."""

import numpy as np
import numpy.typing as npt

from infra.graph import Csr
from infra.serving_meta import ServingHead
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES, WALK_SCALE
from lookup_api.ranking.live import PairFacts, measured_live
from lookup_api.ranking.walks import alone, scratch_for, walk
from tests.suites.planted import planted_graph

WALK = PAIR_FEATURES.index("walk")
VIEWER = 7


def mixed() -> Csr:
    """Friends of a network of one community, in which a walk forgets soon where it came from."""
    return planted_graph(240, communities=1, inside=0.12).now.connections


def dense(friends: Csr) -> npt.NDArray[np.float64]:
    found = np.zeros((friends.rows, friends.rows))
    found[np.repeat(np.arange(friends.rows), friends.degrees()), friends.indices] = 1
    return found


def user_features(friends: Csr) -> npt.NDArray[np.float32]:
    out = np.zeros((friends.rows, len(USER_FEATURES)), np.float32)
    for name in ("degree", "volume"):
        out[:, USER_FEATURES.index(name)] = friends.degrees()
    return out


def measured(friends: Csr, others: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """Of the viewer and others, who are counted from the whole matrix."""
    matrix, users = dense(friends), user_features(friends)
    degree = np.maximum(friends.degrees(), 1)
    common = (matrix @ matrix[VIEWER])[others].astype(np.int64)
    allocation = (matrix @ (matrix[VIEWER] / degree))[others].astype(np.float32)
    nothing = np.zeros(len(others), np.int64)
    facts = PairFacts(common, allocation, nothing.astype(np.float32), nothing)
    return measured_live(facts, users[VIEWER], users[others], friends.entries, 1.0)


def strangers(friends: Csr) -> npt.NDArray[np.int64]:
    return np.setdiff1d(np.flatnonzero(dense(friends)[VIEWER] == 0), [VIEWER])


def test_a_pair_is_told_the_same_in_any_company() -> None:
    friends = mixed()
    everyone = strangers(friends)
    whole = measured(friends, everyone)
    popular = np.argsort(-friends.degrees()[everyone], kind="stable")[:9]
    for chosen in (popular, np.array([3]), np.array([5, 90, 11])):
        np.testing.assert_array_equal(measured(friends, everyone[chosen]), whole[chosen])


def test_an_estimated_walk_is_near_the_one_that_the_night_would_walk() -> None:
    friends = mixed()
    paths, everyone = alone(friends), strangers(friends)
    scratch = scratch_for(paths)
    walk(VIEWER, paths, 10**9, scratch)
    estimated = (measured(friends, everyone)[:, WALK].astype(np.float64) / WALK_SCALE) ** 2
    walked = scratch[0][everyone]
    off = np.abs(estimated / walked - 1)
    assert len(everyone) > 150
    assert np.median(off) < 0.05
    assert off.max() < 0.25


def test_the_head_of_an_earlier_version_opens() -> None:
    head = ServingHead(3, ("a",), ("b",), (), (), 0, entries=8)
    assert ServingHead.from_json(head.to_json()) == head
    before = head.to_json().replace(b'"entries":8,', b"")
    assert ServingHead.from_json(before).entries == 0
