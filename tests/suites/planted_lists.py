"""Candidate lists whose held-out friends follow a known rule."""

import numpy as np

from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker_lists import Lists

TELLS, CURVES = FEATURES.index("log_joint"), FEATURES.index("candidate_degree")


def planted(queries: int, seed: int = 0, size: int = 30) -> Lists:
    """Lists whose held-out friends follow log_joint and, not linearly, candidate_degree; the rest is noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(queries * size, len(FEATURES))).astype(np.float32)
    truth = 1.5 * matrix[:, TELLS] + 3.0 * (np.abs(matrix[:, CURVES]) < 0.5) + rng.gumbel(size=len(matrix))
    rank = (-truth.reshape(queries, size)).argsort(1).argsort(1).reshape(-1)
    offsets = np.arange(queries + 1, dtype=np.int64) * size
    return Lists(matrix, rank < 2, offsets, np.full(queries, 3, np.int64))
