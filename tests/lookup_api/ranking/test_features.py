from dataclasses import replace

import numpy as np
import pytest

from infra.graph import NO_DAY
from infra.settings import CandidateSettings
from lookup_api.ranking.evidence import pair_features, user_features
from lookup_api.ranking.factors import factorise
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.network import Network
from lookup_api.ranking.proximity import proximity
from tests.lookup_api.ranking.networks import dense, small_graph

GRAPH = small_graph()
SETTINGS = CandidateSettings()
NETWORK = Network.build(GRAPH, "now")
USERS = np.array([0, 4, 77, GRAPH.users - 1], np.int32)
EVERY = np.tile(np.arange(GRAPH.users, dtype=np.int32), len(USERS))
OFFSETS = np.arange(len(USERS) + 1, dtype=np.int64) * GRAPH.users
FRIENDS = dense(NETWORK.friends, GRAPH.users)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(1).normal(size=(GRAPH.users, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def factors() -> np.ndarray:
    return np.stack(factorise(NETWORK.friends, 1, 1))


def measured(
    users: np.ndarray, offsets: np.ndarray, others: np.ndarray, vectors: np.ndarray, factors: np.ndarray,
    settings: CandidateSettings = SETTINGS,
) -> np.ndarray:  # fmt: skip
    near = proximity(NETWORK, users, offsets, others, settings, 1)
    return pair_features(NETWORK, users, offsets, others, near, vectors, factors)


@pytest.fixture(scope="module")
def pairs(vectors: np.ndarray, factors: np.ndarray) -> np.ndarray:
    return measured(USERS, OFFSETS, EVERY, vectors, factors)


def column(pairs: np.ndarray, name: str) -> np.ndarray:
    return pairs[:, PAIR_FEATURES.index(name)].astype(np.float64).reshape(len(USERS), -1)


def test_a_pair_has_at_most_sixteen_finite_columns(pairs: np.ndarray) -> None:
    assert len(PAIR_FEATURES) <= 16
    assert pairs.dtype == np.float16
    assert np.isfinite(pairs).all()


def test_counts_of_shared_friends_and_groups_are_those_of_brute_force(pairs: np.ndarray) -> None:
    common = np.rint(np.expm1(column(pairs, "common_neighbours")))
    np.testing.assert_array_equal(common, FRIENDS[USERS] @ FRIENDS)
    codes = GRAPH.attribute_codes
    same = ((codes[:, USERS, None] == codes[:, None, :]) & (codes[:, USERS, None] >= 0)).sum(0)
    np.testing.assert_array_equal(column(pairs, "shared_attributes"), same)
    places = dense(GRAPH.now.affiliations, len(GRAPH.entity_kind))
    np.testing.assert_array_equal(column(pairs, "shared_affiliations"), places[USERS] @ places.T)


def test_dots_are_those_of_the_vectors(pairs: np.ndarray, vectors: np.ndarray, factors: np.ndarray) -> None:
    np.testing.assert_allclose(column(pairs, "embedding_dot"), vectors[USERS] @ vectors.T, atol=1e-3)
    np.testing.assert_allclose(column(pairs, "factors"), factors[0][USERS] @ factors[1].T, atol=2e-3)
    np.testing.assert_allclose(column(pairs, "factors_back"), factors[1][USERS] @ factors[0].T, atol=2e-3)


def test_interactions_count_by_direction(pairs: np.ndarray) -> None:
    acts = np.zeros((GRAPH.users, GRAPH.users))
    rows = GRAPH.now.interactions
    acts[np.repeat(np.arange(GRAPH.users), rows.degrees()), rows.indices] = rows.values
    np.testing.assert_allclose(column(pairs, "acted"), np.log1p(acts[USERS]), rtol=1e-3)
    np.testing.assert_allclose(column(pairs, "acted_on"), np.log1p(acts[:, USERS].T), rtol=1e-3)


def test_the_telling_attribute_lifts_and_the_idle_one_does_not(pairs: np.ndarray) -> None:
    lift, affinity = column(pairs, "attribute_lift")[0], column(pairs, "attribute_affinity")[0]
    school, mood = GRAPH.attribute_codes == GRAPH.attribute_codes[:, :1]
    assert lift[school].mean() > 1.5
    assert abs(lift[mood & ~school].mean()) < 0.3
    assert affinity[school].mean() > affinity[~school].mean() + 1


def test_a_pair_measured_alone_equals_the_pair_in_its_block(
    pairs: np.ndarray, vectors: np.ndarray, factors: np.ndarray
) -> None:
    for at in (5, GRAPH.users + 9, 3 * GRAPH.users + 2):
        user = USERS[at // GRAPH.users : at // GRAPH.users + 1]
        alone = measured(user, np.array([0, 1]), EVERY[at : at + 1], vectors, factors)
        np.testing.assert_array_equal(alone[0], pairs[at])


def test_small_walk_scores_survive_storing() -> None:
    """Scores of 1e-8 and below, two powers of ten under the least float16, stay apart and in order."""
    from lookup_api.ranking.features import WALK_SCALE

    scores = np.array([1e-9, 2e-9, 1e-8, 1e-3])
    stored = (WALK_SCALE * np.sqrt(scores)).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(np.square(stored / WALK_SCALE), scores, rtol=2e-3)


def test_what_the_ranker_sees_is_a_function_of_stored_values(pairs: np.ndarray) -> None:
    users = user_features(NETWORK)
    viewer = np.repeat(users[USERS], GRAPH.users, axis=0)
    matrix = assemble(pairs, viewer, users[EVERY])
    assert matrix.shape == (len(EVERY), len(FEATURES))
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()
    part = slice(10, 20)
    np.testing.assert_array_equal(assemble(pairs[part], users[USERS[0]], users[EVERY[part]]), matrix[part])


def test_jaccard_is_shared_over_all_friends(pairs: np.ndarray) -> None:
    users = user_features(NETWORK)
    matrix = assemble(pairs[: GRAPH.users], users[0], users)
    union = np.array([np.count_nonzero((FRIENDS[0] + row) > 0) for row in FRIENDS])
    expected = FRIENDS[0] @ FRIENDS / np.maximum(union, 1)
    np.testing.assert_allclose(matrix[:, FEATURES.index("jaccard")], expected, atol=5e-3)


def test_a_walk_back_is_the_walk_the_other_way(vectors: np.ndarray, factors: np.ndarray) -> None:
    """Random walks on undirected graphs are reversible: p(v, u) deg(v) = p(u, v) deg(u)."""
    users = user_features(NETWORK)
    wide = CandidateSettings(walk_budget=10**9)

    def seen(one: int, other: int) -> dict[str, float]:
        here, there = np.array([one], np.int32), np.array([other], np.int32)
        pair = measured(here, np.array([0, 1]), there, vectors, factors, wide)
        return dict(zip(FEATURES, assemble(pair, users[one], users[[other]])[0].tolist(), strict=True))

    there, back = seen(2, 60), seen(60, 2)
    assert there["log_walk_back"] == pytest.approx(back["log_walk"], abs=0.01)
    assert there["log_joint_back"] == pytest.approx(back["log_joint"], abs=0.01)


def test_user_features_count_friends_and_days() -> None:
    users = user_features(NETWORK)
    seen = {name: users[:, at] for at, name in enumerate(USER_FEATURES)}
    np.testing.assert_array_equal(seen["degree"], FRIENDS.sum(1))
    np.testing.assert_array_equal(seen["days_since_joined"], np.full(GRAPH.users, 2_000))
    age = GRAPH.as_of_day - NETWORK.days[NETWORK.friends.indptr[5] : NETWORK.friends.indptr[6]]
    assert seen["days_since_friend"][5] == age.min()
    assert seen["friends_last_year"][5] == (age <= 365).sum()
    assert seen["days_since_friend"][-1] == -1


def test_who_joined_after_the_end_of_past_is_a_user_of_unknown_age_there() -> None:
    """A clamped 0 would tell the ranker who could only have made friends in the window it is asked about."""
    past = Network.build(GRAPH, "past")
    joined = np.full(GRAPH.users, past.today - 10, np.int32)
    joined[:3] = past.today, past.today + 1, NO_DAY
    ages = user_features(replace(past, joined_day=joined))[:, USER_FEATURES.index("days_since_joined")]
    np.testing.assert_array_equal(ages, [-1, -1, -1, *[10] * (GRAPH.users - 3)])
