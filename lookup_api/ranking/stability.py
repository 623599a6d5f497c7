"""How far two histograms are apart: the population stability index, less what chance explains.

The index is the sum over bins of (actual - expected) x ln(actual / expected), of shares (Siddiqi, Credit Risk
Scorecards, 2006). Where both come from one population it is about (1 / n + 1 / m) times a chi-square of bins - 1
degrees of freedom (Yurdakul, 2018), which is taken off.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

CHANCE = 3.0
"""Standard deviations of chance that are no change."""


def stability_index(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> float:
    """Population stability index of two histograms [bins], less what chance may make of it; at least 0."""
    return float(stability_indexes(now[None], before[None])[0])


def stability_indexes(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The same of many pairs of histograms [n, bins], float64 [n]; 0 where one of a pair is empty. Bins that are empty
    on both sides count for nothing."""
    used = (now > 0) | (before > 0)
    n, m = (counts.sum(axis=1, dtype=np.float64) for counts in (now, before))
    p, q = (np.where(used, counts + 0.5, 0.0) for counts in (now, before))
    some = used.any(axis=1, keepdims=True)
    p, q = (np.divide(counts, counts.sum(axis=1, keepdims=True), where=some, out=counts) for counts in (p, q))
    logs = np.log(np.divide(p, q, where=used, out=np.ones_like(p)))
    both = (n > 0) & (m > 0)
    freedom = used.sum(axis=1) - 1
    rarely = freedom + CHANCE * np.sqrt(2 * np.maximum(freedom, 0))
    chance = np.divide(rarely * (n + m), n * m, where=both, out=np.zeros(len(n)))
    found: npt.NDArray[np.float64] = np.where(both, np.maximum(((p - q) * logs).sum(axis=1) - chance, 0.0), 0.0)
    return found
