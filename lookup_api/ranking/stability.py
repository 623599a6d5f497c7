"""How far apart two histograms are: the population stability index, less what chance explains.

Where both come from one population it is about (1 / n + 1 / m) times a chi-square of bins - 1 degrees of freedom
(Yurdakul, 2018), which is taken off.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

CHANCE = 3.0
"""Standard deviations of chance that are no change."""


def stability_index(now: npt.NDArray[Any], before: npt.NDArray[Any]) -> float:
    """Population stability index of two histograms, less what chance may make of it; at least 0."""
    used = (now > 0) | (before > 0)
    n, m = now.sum(), before.sum()
    if not n or not m:
        return 0.0
    p, q = ((counts[used] + 0.5) / (counts[used] + 0.5).sum() for counts in (now, before))
    freedom = int(used.sum()) - 1
    chance = (1 / n + 1 / m) * (freedom + CHANCE * np.sqrt(2 * freedom))
    return float(max(((p - q) * np.log(p / q)).sum() - chance, 0.0))
