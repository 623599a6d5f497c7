"""How near two people are in the network: the columns that finding candidates leaves beside them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Int32, Int64
from infra.settings import CandidateSettings
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.features import PROXIMITY, SQUARE_SCALE, WALK_SCALE
from lookup_api.ranking.kernels import njit
from lookup_api.ranking.neighbourhood import CN, FRESH, RA, clear, two_hop
from lookup_api.ranking.network import Network
from lookup_api.ranking.walks import alone, scratch_for, together, walk

WALK, JOINT_WALK = 4, 5
"""Columns of what is measured of a pair, after the four of the neighbourhood."""
MEASURED = 6

Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]


def proximity(
    network: Network, users: Int32, offsets: Int64, candidates: Int32, settings: CandidateSettings, seed: int
) -> Float16:
    """PROXIMITY of candidates[offsets[i]:offsets[i + 1]] as seen by users[i], float16 [n, 5].

    users int32 [B], offsets int64 [B + 1], candidates int32 [n]. Of a candidate that `block_candidates` names, the same
    values as it gives.
    """
    measured = np.zeros((len(candidates), MEASURED), np.float32)
    paths = ways(network)
    asked = (readonly(users), readonly(offsets), readonly(candidates))
    _measure_at(*asked, paths, settings.hub_cap, seed, settings.walk_budget, measured)
    return as_features(measured)


def as_features(measured: Float32) -> Float16:
    """PROXIMITY float16 [n, 5] from what was measured, float32 [n, 6]: CN, AA, RA, FRESH, WALK, JOINT_WALK."""
    out = np.empty((len(measured), len(PROXIMITY)), np.float16)
    out[:, 0] = np.log1p(measured[:, CN])
    for at, column, scale in ((1, RA, SQUARE_SCALE), (2, FRESH, SQUARE_SCALE), (3, WALK, WALK_SCALE)):
        out[:, at] = scale * np.sqrt(measured[:, column])
    out[:, 4] = WALK_SCALE * np.sqrt(measured[:, JOINT_WALK])
    return out


def ways(network: Network) -> Any:
    """The network as `reach` takes it: friends with their days, and the two kinds of walk."""
    friends = pair(network.friends)
    known = (readonly(network.days), network.today)
    return friends, known, alone(network.friends), together(network.friends, network.groups)


@njit(cache=True, nogil=True)
def scratch_of(paths):  # type: ignore[no-untyped-def]
    """Working memory of `reach`: scores and nodes of friends of friends, and what the two walks need."""
    rows = len(paths[0][0]) - 1
    return np.zeros((rows, 4), np.float32), np.empty(rows, np.int32), scratch_for(paths[2]), scratch_for(paths[3])


@njit(cache=True, nogil=True)
def reach(user, paths, cap, seed, budget, scratch):  # type: ignore[no-untyped-def]
    """Leaves in scratch how near everyone is to the user; returns how many each of the three ways reached."""
    friends, known, lone, joint = paths
    hops = two_hop(user, friends[0], friends[1], known[0], known[1], cap, seed, scratch[0], scratch[1])
    return hops, walk(user, lone, budget, scratch[2]), walk(user, joint, budget, scratch[3])


@njit(cache=True, nogil=True)
def measure(node, scratch, out):  # type: ignore[no-untyped-def]
    """Writes what `reach` left for a node to out float32 [MEASURED]."""
    out[:4] = scratch[0][node]
    out[WALK] = scratch[2][0][node]
    out[JOINT_WALK] = scratch[3][0][node]


@njit(cache=True, nogil=True)
def forget(counts, scratch):  # type: ignore[no-untyped-def]
    """Clears scratch for the next user. counts: what `reach` returned."""
    clear(scratch[0], scratch[1], counts[0])
    clear(scratch[2][0], scratch[2][1], counts[1])
    clear(scratch[3][0], scratch[3][1], counts[2])


@njit(cache=True, nogil=True)
def _measure_at(users, offsets, candidates, paths, cap, seed, budget, out):  # type: ignore[no-untyped-def]
    scratch = scratch_of(paths)
    for i in range(len(users)):
        counts = reach(users[i], paths, cap, seed, budget, scratch)
        for at in range(offsets[i], offsets[i + 1]):
            measure(candidates[at], scratch, out[at])
        forget(counts, scratch)
