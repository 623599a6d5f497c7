"""Two rankings on the same users: by how much one is better, with paired bootstrap intervals."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jobs.metrics import Float64, PerUser, interval_of, resampled_means


def compare(own: PerUser, other: PerUser, seed: int) -> dict[str, dict[str, Any]]:
    """For each metric the means of both, own - other and own / other, each with an interval over the same users.

    {"recall@20": {"own", "other", "difference", "difference_interval", "ratio", "ratio_interval"}}. Intervals are None
    for nobody; a ratio is None where the other finds nothing, in the mean or in some draw.
    """
    users = len(own.mrr)
    drawn = [resampled_means(one.matrix(), seed) if users else None for one in (own, other)]
    means = (own.means(), other.means())
    return {name: _compared(means, drawn, name, at) for at, name in enumerate(PerUser.NAMES)}


def _compared(means: tuple[Any, Any], drawn: list[Float64 | None], name: str, at: int) -> dict[str, Any]:
    one, other = (mean[name] for mean in means)
    if drawn[0] is None or drawn[1] is None:
        keys = ("own", "other", "difference", "difference_interval", "ratio", "ratio_interval")
        return dict.fromkeys(keys)
    ones, others = drawn[0][:, at], drawn[1][:, at]
    return {
        "own": one,
        "other": other,
        "difference": one - other,
        "difference_interval": interval_of(ones - others),
        "ratio": one / other if other > 0 else None,
        "ratio_interval": interval_of(ones / others) if np.all(others > 0) else None,
    }


def against_best(values: Mapping[str, PerUser], own: str, rivals: tuple[str, ...], seed: int) -> dict[str, Any]:
    """For each metric the rival that is best by it and how `own` compares with that one.

    {"recall@20": {"heuristic": name, "ratio", "ratio_interval", ...}}; {} where there are no rivals or nobody is asked.
    """
    known = [name for name in rivals if name in values]
    if not known or not len(values[own].mrr):
        return {}
    means = {name: values[name].means() for name in known}
    best = {metric: max(known, key=lambda name: means[name][metric] or 0.0) for metric in PerUser.NAMES}
    compared = {name: compare(values[own], values[name], seed) for name in set(best.values())}
    return {metric: {"heuristic": name} | compared[name][metric] for metric, name in best.items()}
