"""Recall by budget: the union is the one that the candidates stage would make, counted by brute force."""

import numpy as np
import pytest

from infra.settings import CandidateSettings, Settings
from jobs.candidate_depth import DEPTHS, recall_by_depth, with_nearest
from jobs.held_out import choose_asked
from lookup_api.ranking.candidates import WEIGHTS, block_candidates, source_lists, united
from lookup_api.ranking.network import Network
from lookup_api.ranking.sources import AFFILIATION, ANN, NAMES
from tests.suites.planted import bare_graph, planted_graph
from tests.suites.small_release import small_release


def nearest(users):
    return np.stack([np.random.default_rng(int(user)).permutation(240)[:200] for user in users]).astype(np.int32)


@pytest.mark.parametrize("k", [5, 40, 120])
def test_a_union_of_first_places_is_what_a_smaller_budget_gives(k):
    graph = planted_graph()
    network, users = Network.build(graph, "past"), np.flatnonzero(graph.past.connections.degrees()).astype(np.int32)
    deep, small = (CandidateSettings(per_user=budget) for budget in (120, k))
    lists = source_lists(network, users, deep, 7, nearest)
    expected = block_candidates(network, users, small, 7, nearest)
    assert np.array_equal(united(lists, np.zeros(len(users), bool), graph.users, k), expected.rows)
    for at, bit in enumerate(WEIGHTS):
        for row, bits, named in zip(expected.rows, expected.sources, lists[:, at, :k], strict=True):
            assert set(row[(bits & bit) > 0]) <= set(named.tolist()) - {-1}


def test_the_index_names_as_few_for_a_union_as_it_does_in_the_stage():
    """Friends among the nearest leave places empty: those further away do not take them."""
    graph = planted_graph()
    network, users = Network.build(graph, "past"), np.arange(graph.users, dtype=np.int32)
    friends = [graph.past.connections.row(user)[:8].tolist() for user in users]
    near = np.stack([(one + nearest([user])[0].tolist())[:200] for user, one in zip(users, friends, strict=True)])

    def search(users, k=200):
        return near[users, :k].astype(np.int32)

    lists = source_lists(network, users, CandidateSettings(per_user=120), 7, search)
    staged = with_nearest(lists, network, users, search(users, 20))
    expected = block_candidates(network, users, CandidateSettings(per_user=60), 7, lambda users: search(users, 20))
    assert np.array_equal(united(staged, network.friends.degrees() == 0, graph.users, 60), expected.rows)


@pytest.mark.parametrize("alone", [True, False])
def test_who_has_friends_but_empty_lists_is_not_taken_for_a_newcomer(alone):
    """Groups name better than the index for the new only."""
    lists = np.full((1, len(WEIGHTS), 2), -1, np.int32)
    order = list(WEIGHTS)
    lists[0, order.index(ANN)], lists[0, order.index(AFFILIATION)] = [1, 2], [3, 4]
    expected = [3, 4] if alone else [1, 2]
    assert united(lists, np.array([alone]), 5, 2)[0].tolist() == expected


def test_recall_counts_what_each_source_names(planted_release):
    graph, made = planted_release.graph, planted_release.made
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, 10_000, 17)
    settings = Settings(candidates=CandidateSettings(ann=30))
    found = recall_by_depth({kind: one.path for kind, one in made.items()}, hidden, asked, settings)
    held = sum(len(hidden.row(row)) for row in asked)
    popular = np.argsort(-graph.past.connections.degrees(), kind="stable").tolist()
    for at, depth in enumerate(DEPTHS):
        hits = 0
        for row in asked:
            known = {int(row), *graph.past.connections.row(row).tolist()}
            shown = [candidate for candidate in popular if candidate not in known][:depth]
            hits += len(set(shown) & set(hidden.row(row).tolist()))
        assert found["sources"]["popular"][at] == pytest.approx(hits / held)
    assert set(found["sources"]) == set(NAMES.values())
    assert found["recall"] == sorted(found["recall"])
    assert found["recall"][-1] == 1  # a budget of 1,000 holds everybody
    vectors = np.load(made["embeddings"].path / "past.npy")
    order = np.argsort(-(vectors[asked] @ vectors.T), axis=1)[:, :1000]
    near = [set(row[:100]) - {user, *graph.past.connections.row(user)} for user, row in zip(asked, order, strict=True)]
    hits = sum(len(names & set(hidden.row(user))) for user, names in zip(asked, near, strict=True))
    assert found["sources"]["ann"][0] >= hits / held  # places that friends leave are taken by the next


def test_nobody_asked_has_no_recall(tmp_path):
    graph = bare_graph(3)
    made = small_release(tmp_path, graph)
    none = np.empty(0, np.int64)
    found = recall_by_depth({kind: one.path for kind, one in made.items()}, graph.held_out_of(), none, Settings())
    assert found["users"] == 0
    assert found["recall"] == [None] * len(DEPTHS)
