import numpy as np
import pytest

from infra.graph import Csr
from infra.settings import CandidateSettings
from lookup_api.ranking import sources
from lookup_api.ranking.candidates import block_candidates
from lookup_api.ranking.network import Network
from lookup_api.ranking.proximity import proximity
from tests.lookup_api.ranking.networks import small_graph

GRAPH = small_graph()
SETTINGS = CandidateSettings(per_user=60)
EVERYONE = np.arange(GRAPH.users, dtype=np.int32)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.build(GRAPH, "now")


def nearest(users: np.ndarray) -> np.ndarray:
    return (users[:, None] + np.arange(30)).astype(np.int32) % GRAPH.users


def test_nobody_is_shown_themselves_a_friend_or_an_excluded_row(network: Network) -> None:
    found = block_candidates(network, EVERYONE, SETTINGS, 1, nearest)
    rows, bits = found.rows, found.sources
    for user in EVERYONE:
        named = rows[user][rows[user] >= 0]
        assert len(set(named.tolist())) == len(named)
        barred = {user, *network.friends.row(user).tolist(), *network.excluded.row(user).tolist()}
        assert not barred & set(named.tolist())
    assert ((rows >= 0) == (bits > 0)).all()


def test_every_source_names_someone(network: Network) -> None:
    bits = block_candidates(network, EVERYONE, SETTINGS, 1, nearest).sources
    named = np.bitwise_or.reduce(bits, axis=None)
    expected = (sources.TWO_HOP, sources.WALK, sources.JOINT_WALK, sources.ANN, sources.AFFILIATION, sources.POPULAR)
    assert all(named & bit for bit in expected)


def test_a_candidate_stands_as_near_as_the_pair_alone(network: Network) -> None:
    found = block_candidates(network, EVERYONE[:50], SETTINGS, 1, nearest)
    real = found.rows >= 0
    offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))])
    near = proximity(network, EVERYONE[:50], offsets, found.rows[real], SETTINGS, 1)
    np.testing.assert_array_equal(found.near[real], near)
    assert (near > 0).any(axis=0).all()


def test_a_list_is_the_same_in_whatever_block(network: Network) -> None:
    together = block_candidates(network, EVERYONE, SETTINGS, 1, nearest)
    for users in (EVERYONE[7:8], EVERYONE[100:140]):
        few = block_candidates(network, users, SETTINGS, 1, nearest)
        np.testing.assert_array_equal(few.rows, together.rows[users])
        np.testing.assert_array_equal(few.sources, together.sources[users])
        np.testing.assert_array_equal(few.near, together.near[users])


def test_who_knows_nobody_is_shown_the_popular(network: Network) -> None:
    found = block_candidates(network, EVERYONE[-1:], SETTINGS, 1, None)
    assert found.rows[0].tolist() == sorted(network.popular[:60].tolist())
    assert (found.sources == sources.POPULAR).all()


def test_who_has_groups_but_no_friends_is_shown_people_of_the_same_groups() -> None:
    links = GRAPH.now.connections
    keep = np.ones(links.entries, bool)
    owner = np.repeat(np.arange(GRAPH.users), links.degrees())
    keep[(owner == 0) | (links.indices == 0)] = False
    cut = Csr.from_pairs(GRAPH.users, owner[keep], links.indices[keep], np.asarray(links.values)[keep])
    view = type(GRAPH.now)(cut, GRAPH.now.affiliations, GRAPH.now.interactions)
    alone = Network.build(GRAPH.__class__(**{**GRAPH.__dict__, "now": view}), "now")
    few = SETTINGS.model_copy(update={"per_user": 30})
    rows = block_candidates(alone, EVERYONE[:1], few, 1, None).rows
    assert np.isin(np.arange(1, 20), [*rows[0], *alone.excluded.row(0)]).all()


def test_a_graph_of_one_user_has_no_candidates() -> None:
    found = block_candidates(Network.build(small_graph(users=1), "now"), EVERYONE[:1], SETTINGS, 1, None)
    assert (found.rows == -1).all()


def test_the_communitys_strangers_are_found(network: Network) -> None:
    """In planted communities the right answer is known: the strangers of one's own."""
    few = SETTINGS.model_copy(update={"per_user": 30})
    rows = block_candidates(network, EVERYONE[:-1], few, 1, None).rows
    found, asked = 0, 0
    for user in EVERYONE[:-1]:
        own = np.arange(user // 20 * 20, min(user // 20 * 20 + 20, GRAPH.users - 1))
        strangers = np.setdiff1d(own, [user, *network.friends.row(user), *network.excluded.row(user)])
        found += np.isin(strangers, rows[user]).sum()
        asked += len(strangers)
    assert found / asked > 0.9
