"""Whole blocks of ranked lists through one of the blends."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gnn.blend.dpp import GreedyDPP
from gnn.blend.mmr import MaximalMarginalRelevance
from gnn.blend.protocol import NONE, Blend
from gnn.blend.spacing import SoftSpacing
from gnn.blend.ssd import SlidingSpectrum
from gnn.blend.utility import WeightedUtility
from infra.graph import Csr

LISTS = 64
"""Lists blended at a time."""
WINDOW = 10
"""Picks, with the next, that look at each other: what a person sees at once."""

BLENDS: dict[str, Callable[[float], Any]] = {
    "ssd": lambda diversity: SlidingSpectrum(gamma=diversity, window=WINDOW),
    "dpp": lambda diversity: GreedyDPP(theta=1 - diversity, window=WINDOW),
    "mmr": lambda diversity: MaximalMarginalRelevance(share=1 - diversity),
    "spacing": lambda diversity: SoftSpacing(weight=diversity, window=WINDOW),
}
"""Setting rank.blend -> module, from how much diversity counts beside relevance, between 0 and 1."""

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def blend_lists(
    name: str, diversity: float, user: Int32, candidate: Int32, score: Float32, vectors: Float32, groups: Csr
) -> Int64:
    """The order of ranked lists once diversity counts, places int64 [n] in the input: the lists stay where they are.

    user, candidate int32 [n], score float32 [n]: whole lists one after the other, each best first. vectors float32
    [N, D]: embeddings, for the blends that compare by them. groups: rows of users, for spacing.
    """
    blend: Blend = BLENDS[name](diversity)
    cuts = np.flatnonzero(np.diff(user)) + 1
    starts = np.concatenate([[0], cuts]) if len(user) else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(user)))
    out = np.empty(len(user), np.int64)
    for first in range(0, len(starts), LISTS):
        start, length = starts[first : first + LISTS], lengths[first : first + LISTS]
        within = np.arange(length.max())
        valid = within < length[:, None]
        place = np.where(valid, start[:, None] + within, 0)
        people = candidate[place]
        traits = _groups_of(groups, people) if name == "spacing" else torch.from_numpy(vectors[people])
        picks = _picked(blend, torch.from_numpy(score[place]), traits, torch.from_numpy(valid))
        chosen = picks != NONE
        out[place[valid]] = np.take_along_axis(place, np.where(chosen, picks, 0), 1)[chosen]
    return out


def _picked(blend: Blend, score: Tensor, traits: Tensor, valid: Tensor) -> Int64:
    """Picks of all candidates int64 [B, N], with scores brought to [0, 1] list by list."""
    none = score.new_zeros(*score.shape, 0)
    relevance = WeightedUtility([1.0]).utility(score, none, valid)
    return np.asarray(blend(relevance, traits, valid, score.shape[1]).numpy())


def _groups_of(groups: Csr, people: Int32) -> Tensor:
    """Groups of each person, int64 [B, N, G], padded with NONE."""
    starts, ends = (np.asarray(groups.indptr)[people + more] for more in (0, 1))
    within = np.arange(max(int((ends - starts).max(initial=0)), 1))
    at = starts[:, :, None] + within
    real = at < ends[:, :, None]
    found = np.full(at.shape, NONE, np.int64)
    found[real] = groups.indices[at[real]]
    return torch.from_numpy(found)
