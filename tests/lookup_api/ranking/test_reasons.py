from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.graph import Csr, Graph
from lookup_api.ranking import sources
from lookup_api.ranking.popular import barred_places, fill_popular, most_connected
from lookup_api.ranking.reasons import KINDS, NONE, ReasonFinder
from tests.suites.planted import planted_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    planted = planted_graph(240)
    hidden = Csr.from_pairs(240, np.array([0, 0, 1]), np.array([6, 12, 7]))
    return replace(planted, excluded=hidden)


def found(graph: Graph, user: int, candidate: int, bits: int = sources.TWO_HOP) -> list[tuple[Any, ...]]:
    """Reasons of one pair as (kind, name, value, count)."""
    pair = [np.array([row], np.int32) for row in (user, candidate)]
    reasons = ReasonFinder.of(graph, "now").find(*pair, np.array([bits], np.uint8))
    names = [*graph.attributes, *graph.kinds]
    columns = zip(reasons.kind, reasons.name, reasons.value, reasons.count, strict=True)
    return [
        (KINDS[k], None if n == NONE else names[n], None if v == NONE else int(v), int(c)) for k, n, v, c in columns
    ]


def test_common_friends_are_counted_exactly_without_those_hidden_from_the_viewer(graph: Graph) -> None:
    """Beside sets of friends."""
    friends = [set(graph.now.connections.row(row).tolist()) for row in range(graph.users)]
    hidden = [set(graph.excluded.row(row).tolist()) for row in range(graph.users)]
    pairs = np.random.default_rng(1).integers(0, graph.users, (2000, 2)).astype(np.int32)
    pairs[:200, 0] = np.arange(200) % 2
    bits = np.full(len(pairs), sources.TWO_HOP, np.uint8)
    reasons = ReasonFinder.of(graph, "now").find(pairs[:, 0], pairs[:, 1], bits)
    first = reasons.offsets[:-1]
    counted = np.where(reasons.kind[first] == KINDS.index("mutual_connections"), reasons.count[first], 0)
    assert counted.tolist() == [len((friends[u] & friends[v]) - hidden[u]) for u, v in pairs]


def test_what_fewer_people_share_comes_first_and_at_most_three_reasons_are_given(graph: Graph) -> None:
    """School (32 of 240 hold one of six) says more than colour (60); the club of 40 more than colour."""
    user, candidate = next(
        (u, v)
        for u in range(240)
        for v in range(u + 6, 240, 6)
        if (graph.attribute_codes[:, u] == graph.attribute_codes[:, v]).all()
        and graph.attribute_codes[0, u] >= 0
        and len(np.intersect1d(graph.now.connections.row(u), graph.now.connections.row(v)))
    )
    kinds = [(kind, name) for kind, name, _, _ in found(graph, user, candidate)]
    assert kinds == [("mutual_connections", None), ("same_attribute", "school"), ("same_affiliation", "club")]


def test_values_are_the_shared_code_and_entity(graph: Graph) -> None:
    reasons = found(graph, 0, 6)
    assert ("same_affiliation", "club", sum(graph.cardinalities) + 0, 0) in reasons


def test_what_most_people_have_is_no_reason(graph: Graph) -> None:
    everybody = np.zeros_like(graph.attribute_codes)
    same = replace(graph, attribute_codes=everybody)
    assert not [kind for kind, *_ in found(same, 0, 7) if kind == "same_attribute"]


def test_a_pair_that_shares_nothing_is_near_or_popular(graph: Graph) -> None:
    apart = replace(
        graph,
        attribute_codes=np.full_like(graph.attribute_codes, -1),
        now=replace(graph.now, affiliations=Csr.empty(240, np.float32)),
    )
    friends = apart.now.connections
    u, v = next((0, v) for v in range(1, 240) if not len(np.intersect1d(friends.row(0), friends.row(v))))
    assert found(apart, u, v, sources.ANN | sources.POPULAR) == [("near_in_network", None, None, 0)]
    assert found(apart, u, v, sources.POPULAR) == [("popular", None, None, len(friends.row(v)))]


def test_popular_people_are_never_oneself_a_friend_or_excluded(graph: Graph) -> None:
    friends = graph.now.connections
    popular = most_connected(friends)
    assert (np.diff(friends.degrees()[popular]) <= 0).all()
    users = np.array([0, 1, 5], np.int32)
    user, candidate, rank = fill_popular(users, popular, friends, graph.excluded, 20)
    places, counts = barred_places(users, popular[:50], friends, graph.excluded)
    for number, row in enumerate(users):
        barred = {int(row), *friends.row(row).tolist(), *graph.excluded.row(row).tolist()}
        expected = [p for p in popular.tolist() if p not in barred][:20]
        assert candidate[user == row].tolist() == expected
        assert rank[user == row].tolist() == list(range(1, 21))
        mine = np.split(places, np.cumsum(counts)[:-1])[number]
        assert mine.tolist() == [place for place, p in enumerate(popular[:50].tolist()) if p in barred]
