"""Users without friends: who is named for them, what is measured of a pair, and how they are ranked."""

import json
from pathlib import Path

import numpy as np
import pytest

from infra.errors import CorruptArtifact
from infra.settings import CandidateSettings
from lookup_api.ranking import groups, sources
from lookup_api.ranking.candidates import LEAST_DRAW, block_candidates
from lookup_api.ranking.evidence import AFFINITY_PRIOR, pair_features
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES
from lookup_api.ranking.groups import leaders_of
from lookup_api.ranking.learning import of_one_signal
from lookup_api.ranking.network import Network
from lookup_api.ranking.newcomers import DEFAULTS, FILE, Newcomers, design, without_friends
from lookup_api.ranking.scoring import RankingModel
from tests.lookup_api.ranking.networks import dense, small_graph, without_friends_of
from tests.suites.planted_lists import planted

NEWCOMERS = np.array([0, 45, 170], np.int32)
GRAPH = without_friends_of(small_graph(), NEWCOMERS.tolist())
NETWORK = Network.build(GRAPH, "now")
NOBODY = GRAPH.users - 1
SETTINGS = CandidateSettings(per_user=60)


def nearest(users: np.ndarray) -> np.ndarray:
    return (users[:, None] + np.arange(30)).astype(np.int32) % GRAPH.users


def matrix_of(rows: int, viewer_degree: float, seed: int = 1) -> np.ndarray:
    matrix = np.random.default_rng(seed).random((rows, len(FEATURES))).astype(np.float32)
    matrix[:, FEATURES.index("viewer_degree")] = viewer_degree
    return matrix


def test_the_groups_of_a_newcomer_name_the_most_connected_first() -> None:
    """Sum over shared groups of the share of a member's friends inside / size, times 1 + friends, by brute force."""
    member = dense(NETWORK.groups.of_user, NETWORK.groups.members.rows)
    size, degree = member.sum(axis=0), NETWORK.friends.degrees()
    weight = np.where(size > 1, (NETWORK.groups.draw + LEAST_DRAW) / np.maximum(size, 1), 0)
    expected = (member[NEWCOMERS] * weight) @ member.T * (1 + degree)
    found = block_candidates(NETWORK, NEWCOMERS, CandidateSettings(per_user=20), 1, None)
    for user, rows, bits, score in zip(NEWCOMERS, found.rows, found.sources, expected, strict=True):
        score[[user, *NETWORK.excluded.row(user)]] = 0
        best = np.argsort(-score, kind="stable")[:20]
        first = best[:8][score[best[:8]] > 0]
        assert np.isin(first, rows).all()
        assert (bits[np.isin(rows, first)] & sources.AFFILIATION > 0).all()


def test_who_has_nothing_at_all_is_shown_the_popular_even_where_neighbours_are_found() -> None:
    found = block_candidates(NETWORK, np.array([NOBODY], np.int32), SETTINGS, 1, nearest)
    assert (found.sources == sources.POPULAR).all()
    assert found.rows[0].tolist() == sorted(NETWORK.popular[:60].tolist())
    with_profile = block_candidates(NETWORK, NEWCOMERS[:1], SETTINGS, 1, nearest)
    assert (with_profile.sources & sources.ANN > 0).any()


def test_leaders_are_the_most_connected_of_large_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LEADERS", 10)
    members, degree = NETWORK.groups.members, NETWORK.friends.degrees()
    leaders = leaders_of(members, degree)
    assert leaders.rows == members.rows
    for group in range(members.rows):
        all_of_them = members.row(group).tolist()
        expected = sorted(all_of_them, key=lambda row: (-degree[row], row))[:10]
        assert leaders.row(group).tolist() == (sorted(expected) if len(all_of_them) > 10 else [])
    assert leaders.entries


def test_the_affinity_of_a_newcomer_is_that_of_the_candidates_friends_to_the_newcomers_groups() -> None:
    others = np.arange(GRAPH.users, dtype=np.int32)
    vectors = np.ones((GRAPH.users, 1), np.float32)
    offsets = np.array([0, GRAPH.users], np.int64)
    near = np.zeros((GRAPH.users, 5), np.float16)
    member, friends = dense(NETWORK.groups.of_user, NETWORK.groups.members.rows), dense(NETWORK.friends, GRAPH.users)
    share, degree = member.mean(axis=0), friends.sum(axis=1)
    apart = np.zeros(2)
    for user in NEWCOMERS:
        found = pair_features(NETWORK, np.array([user]), offsets, others, near, vectors, np.stack([vectors, vectors]))
        for kind, name in enumerate(("attribute_affinity", "affiliation_affinity")):
            mine = np.flatnonzero(member[user])
            mine = mine[(mine >= NETWORK.groups.entities) == (kind == 0)]
            prior = AFFINITY_PRIOR * share[mine]
            like = np.log((friends @ member[:, mine] + prior) / (degree[:, None] + AFFINITY_PRIOR) / share[mine])
            expected = (like if kind == 0 else np.maximum(like, 0)).sum(axis=1)
            np.testing.assert_allclose(found[:, PAIR_FEATURES.index(name)], expected, atol=4e-3)
            apart[kind] = max(apart[kind], np.ptp(expected))
    assert (apart > 1).all()


def test_the_score_is_the_weighted_sum_of_the_named_columns() -> None:
    matrix = matrix_of(50, 0)
    expected = np.zeros(50)
    for name, weight in DEFAULTS.items():
        count = name in ("log_candidate_degree", "log_candidate_volume")
        column = matrix[:, FEATURES.index(name.removeprefix("log_") if count else name)]
        expected += weight * (np.log1p(column) if count else column)
    np.testing.assert_allclose(Newcomers.by_default().score(matrix), expected, rtol=1e-5)
    assert design(matrix).shape == (50, len(DEFAULTS))


def test_who_has_no_groups_either_is_ranked_by_friends_of_the_candidates() -> None:
    matrix = matrix_of(50, 0)
    matrix[:, FEATURES.index("viewer_groups")] = 0
    matrix[:, [FEATURES.index("acted"), FEATURES.index("acted_on")]] = 0
    expected = np.argsort(matrix[:, FEATURES.index("candidate_degree")])
    np.testing.assert_array_equal(np.argsort(Newcomers.by_default().score(matrix)), expected)


def test_a_score_does_not_depend_on_the_rows_beside_it() -> None:
    matrix, newcomers = matrix_of(50, 0), Newcomers.by_default()
    np.testing.assert_array_equal(newcomers.score(matrix)[7:9], newcomers.score(matrix[7:9]))


def test_only_viewers_without_friends_are_ranked_apart() -> None:
    matrix = np.concatenate([matrix_of(5, 3), matrix_of(4, 0)])
    given = np.arange(9, dtype=np.float32)
    amended = Newcomers.by_default().amend(given, matrix)
    np.testing.assert_array_equal(without_friends(matrix), [False] * 5 + [True] * 4)
    np.testing.assert_array_equal(amended[:5], given[:5])
    np.testing.assert_array_equal(amended[5:], Newcomers.by_default().score(matrix[5:]))
    np.testing.assert_array_equal(given, np.arange(9))


def test_saved_weights_open_as_they_were(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).normal(size=len(DEFAULTS))
    Newcomers(weights).save(tmp_path)
    opened = Newcomers.open(tmp_path)
    assert opened is not None
    np.testing.assert_array_equal(opened.weights, weights)


def test_a_ranker_without_weights_for_newcomers_ranks_for_all_as_it_did(tmp_path: Path) -> None:
    ranker = of_one_signal("log_joint", planted(0))
    ranker.save(tmp_path)
    matrix = np.concatenate([matrix_of(5, 3), matrix_of(4, 0)])
    np.testing.assert_array_equal(RankingModel.open(tmp_path).score(matrix), ranker.score(matrix))
    Newcomers.by_default().save(tmp_path)
    amended = Newcomers.by_default().amend(ranker.score(matrix), matrix)
    np.testing.assert_array_equal(RankingModel.open(tmp_path).score(matrix), amended)


def test_weights_of_the_version_before_towers_open_without_one(tmp_path: Path) -> None:
    head = Newcomers.by_default().head()
    weights = {name: weight for name, weight in head["weights"].items() if name != "factors"}
    (tmp_path / FILE).write_text(json.dumps(head | {"version": 1, "weights": weights}))
    opened = Newcomers.open(tmp_path)
    assert opened is not None
    assert dict(zip(DEFAULTS, opened.weights, strict=True)) == weights | {"factors": 0.0}


@pytest.mark.parametrize("change", [{"version": 99}, {"weights": {"log_joint": 1.0}}])
def test_weights_of_another_version_or_of_other_columns_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / FILE).write_text(json.dumps(Newcomers.by_default().head() | change))
    with pytest.raises(CorruptArtifact, match=FILE):
        Newcomers.open(tmp_path)
