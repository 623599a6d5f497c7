"""Lists to learn from how people without friends choose: of users who are made newcomers for the purpose.

All past friendships of a seeded few users of LEARN are hidden from the past view, as if they had joined with no more
than their profile; whom they had befriended is what is to be found.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.graph import LEARN, Csr, Graph, Int32, Int64, open_array
from infra.hashing import ContentHash
from infra.settings import CandidateSettings
from jobs.entries import contains
from lookup_api.ranking.candidates import block_candidates
from lookup_api.ranking.evidence import pair_features, user_features
from lookup_api.ranking.features import assemble
from lookup_api.ranking.groups import memberships
from lookup_api.ranking.network import Network
from lookup_api.ranking.newcomers import design
from lookup_api.ranking.ranker_lists import Lists

Tell = Callable[[npt.NDArray[np.float16], Int32, Int32, Csr], None]

NEWCOMERS = "newcomers"
"""Folder of the lists in the features artifact."""
SHARE = 0.05
"""Share of the users who are made newcomers: few enough to leave the network as it is."""
MOST = 2_000


def choose_newcomers(graph: Graph, seed: int) -> Int32:
    """Rows of users of LEARN who have a group and a friend in the past view, int32 ascending."""
    able = (graph.split == LEARN) & (graph.past.connections.degrees() > 0)
    able &= memberships(graph, graph.past).degrees() > 0
    rows = np.flatnonzero(able).astype(np.int32)
    count = min(MOST, len(rows), max(1, round(SHARE * graph.users)))
    chosen: Int32 = np.sort(np.random.default_rng(np.random.SeedSequence([seed, 5])).choice(rows, count, replace=False))
    return chosen


def newcomer_lists(graph: Graph, settings: CandidateSettings, seed: int, tell: Tell | None = None) -> Lists:
    """Candidate lists of the chosen, with what the ranker sees of a newcomer.

    Embeddings are left out: those of others know whom the chosen befriended. tell: adds to the pair features float16
    [n, P] of viewers and candidates int32 [n], given whose friendships are left.
    """
    users = choose_newcomers(graph, seed)
    chosen = np.zeros(graph.users, bool)
    chosen[users] = True
    friends = graph.past.connections
    rest = without_friendships_of(friends, users)
    network = Network.build(replace(graph, past=replace(graph.past, connections=rest)), "past")
    found = block_candidates(network, users, settings, seed, None)
    real = (found.rows >= 0) & ~chosen[found.rows]
    viewer, candidate = np.repeat(users, real.sum(axis=1)), found.rows[real]
    offsets = np.concatenate([[0], np.cumsum(real.sum(axis=1))]).astype(np.int64)
    nothing = np.zeros((2, graph.users, 1), np.float32)
    pair = pair_features(network, users, offsets, candidate, found.near[real], nothing[0], nothing)
    if tell:
        tell(pair, viewer, candidate, network.friends)
    of_users = user_features(network)
    matrix = assemble(pair, of_users[viewer], of_users[candidate])
    return Lists(matrix, contains(friends, viewer, candidate), offsets, _friends_of(friends, users, ~chosen))


def without_friendships_of(friends: Csr, users: Int32) -> Csr:
    """What is left of symmetric friendships; beside the result, memory of two bytes an entry."""
    chosen, theirs = np.zeros(friends.rows, bool), friends.entries_of(users)
    chosen[users] = True
    degree = friends.degrees() - np.bincount(friends.indices[theirs], minlength=friends.rows)
    degree[users] = 0
    keep = ~chosen[friends.indices]
    keep[theirs] = False
    indptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    return Csr(indptr, friends.indices[keep], None if friends.values is None else friends.values[keep])


def _friends_of(friends: Csr, users: Int32, counted: npt.NDArray[np.bool_]) -> Int64:
    """How many of those who count are friends of each user, int64 [users]."""
    owner = np.repeat(np.arange(len(users)), friends.degrees()[users])
    return np.bincount(owner[counted[friends.indices[friends.entries_of(users)]]], minlength=len(users))


def save_lists(lists: Lists, folder: Path) -> ContentHash:
    """Writes the columns that newcomers are ranked by, float32 [n, C], and the labels; returns their hash."""
    folder.mkdir()
    arrays = {"columns": design(lists.matrix), "label": lists.label, "offsets": lists.offsets, "held": lists.held}
    digest = ContentHash()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        digest.array(name, array)
    return digest


def open_lists(folder: Path) -> Lists:
    """Saved lists; their matrix holds the columns of `newcomers.DEFAULTS`."""
    return Lists(*(open_array(folder / f"{name}.npy") for name in ("columns", "label", "offsets", "held")))
