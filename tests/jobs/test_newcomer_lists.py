"""Lists of users who are made newcomers: hidden from the network they are ranked in; labels are whom they knew."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.graph import LEARN, REPORT, Graph
from infra.settings import CandidateSettings
from jobs.newcomer_lists import choose_newcomers, newcomer_lists, open_lists, save_lists, without_friendships_of
from jobs.past_view import keep_entries, rows_of_entries
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.newcomer_weights import learn
from lookup_api.ranking.newcomers import design
from lookup_api.ranking.ranker_lists import Lists, recall
from tests.lookup_api.ranking.networks import small_graph

SETTINGS = CandidateSettings(per_user=40)
SEED = 3


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_graph(1000)


@pytest.fixture(scope="module")
def lists(graph: Graph) -> Lists:
    return newcomer_lists(graph, SETTINGS, SEED)


def test_newcomers_are_a_seeded_few_of_the_users_to_learn_from(graph: Graph) -> None:
    chosen = choose_newcomers(graph, SEED)
    assert len(chosen) == 50
    assert (graph.split[chosen] == LEARN).all()
    assert (graph.past.connections.degrees()[chosen] > 0).all()
    np.testing.assert_array_equal(chosen, choose_newcomers(graph, SEED))
    assert not np.array_equal(chosen, choose_newcomers(graph, SEED + 1))


def test_a_newcomer_looks_like_one(lists: Lists) -> None:
    def column(name: str) -> np.ndarray:
        return lists.matrix[:, FEATURES.index(name)]

    for name in ("viewer_degree", "common_neighbours", "resource_allocation", "walk", "factors", "embedding_dot"):
        assert not column(name).any(), name
    for name in ("candidate_degree", "joint_walk", "attribute_lift", "attribute_affinity", "affiliation_lift"):
        assert column(name).any(), name


def test_labels_are_past_friends_who_are_no_newcomers_themselves(graph: Graph, lists: Lists) -> None:
    chosen = choose_newcomers(graph, SEED)
    expected = [len(set(graph.past.connections.row(user).tolist()) - set(chosen.tolist())) for user in chosen]
    np.testing.assert_array_equal(lists.held, expected)
    found = np.bincount(lists.query[lists.label], minlength=len(chosen))
    assert (found <= lists.held).all()
    assert found.sum() > 0.3 * lists.held.sum()


def test_a_network_without_the_friendships_of_some_is_what_is_left_entry_by_entry(graph: Graph) -> None:
    friends, chosen = graph.past.connections, choose_newcomers(graph, SEED)
    row = rows_of_entries(friends)
    expected = keep_entries(friends, ~np.isin(row, chosen) & ~np.isin(friends.indices, chosen))
    left = without_friendships_of(friends, chosen)
    np.testing.assert_array_equal(left.indptr, expected.indptr)
    np.testing.assert_array_equal(left.indices, expected.indices)
    np.testing.assert_array_equal(left.values, expected.values)


def test_held_out_friendships_change_nothing(graph: Graph, lists: Lists) -> None:
    draw = np.random.default_rng(1)
    other = np.sort(draw.integers(0, graph.users, graph.held_out.shape), axis=1).astype(np.int32)
    again = newcomer_lists(replace(graph, held_out=other, now=graph.past), SETTINGS, SEED)
    np.testing.assert_array_equal(again.matrix, lists.matrix)
    np.testing.assert_array_equal(again.label, lists.label)


def test_what_is_learnt_finds_more_than_the_popular(lists: Lists) -> None:
    learnt = learn(replace(lists, matrix=design(lists.matrix)))
    popular = lists.matrix[:, FEATURES.index("candidate_degree")]
    assert recall(lists, learnt.score(lists.matrix)) > 1.5 * recall(lists, popular)


def test_a_network_without_anybody_to_learn_from_has_no_lists(graph: Graph) -> None:
    nobody = replace(graph, split=np.full(graph.users, REPORT, np.uint8))
    lists = newcomer_lists(nobody, SETTINGS, SEED)
    assert len(lists.held) == 0
    np.testing.assert_array_equal(lists.offsets, [0])
    assert learn(replace(lists, matrix=design(lists.matrix))).told["lists"] == 0


def test_saved_lists_open_as_the_columns_that_are_learnt_on(lists: Lists, tmp_path: Path) -> None:
    save_lists(lists, tmp_path / "newcomers")
    opened = open_lists(tmp_path / "newcomers")
    np.testing.assert_array_equal(opened.matrix, design(lists.matrix))
    np.testing.assert_array_equal(opened.label, lists.label)
    np.testing.assert_array_equal(opened.query, lists.query)
    np.testing.assert_array_equal(opened.held, lists.held)
