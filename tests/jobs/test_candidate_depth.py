"""Recall by budget: the union is the one that the candidates stage would make, counted by brute force."""

import numpy as np
import pytest

from infra.settings import CandidateSettings, Settings
from jobs.candidate_depth import DEPTHS, recall_by_depth
from jobs.held_out import choose_asked
from lookup_api.ranking.candidates import WEIGHTS, block_candidates, source_lists, united
from lookup_api.ranking.network import Network
from lookup_api.ranking.sources import NAMES
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
    assert np.array_equal(united(lists, graph.users, k), expected.rows)
    for at, bit in enumerate(WEIGHTS):
        for row, bits, named in zip(expected.rows, expected.sources, lists[:, at, :k], strict=True):
            assert set(row[(bits & bit) > 0]) <= set(named.tolist()) - {-1}


def test_recall_counts_what_each_source_names(tmp_path):
    graph = planted_graph()
    made = small_release(tmp_path, graph)
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
