"""How far two nights are apart, by the profiles that jobs.profiles keeps of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookup_api.ranking.stability import CHANCE, stability_index

Array = npt.NDArray[Any]
Profile = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """A measure and how far it is from before, beyond what chance explains: relative, or a stability index."""

    detail: str
    size: float


def input_changes(now: Profile, before: Profile) -> Iterator[Change]:
    """Relative changes of counts and rates; what was not there before is no change."""
    for name, count in before["counts"].items():
        found = now["counts"].get(name, 0)
        yield Change(f"{found:,} {name}, {count:,} before", relative_change(found, count))
    for name, (hits, of) in before["rates"].items():
        found, among = now["rates"].get(name, (0, 0))
        detail = f"{_share(found, among):.1%} {name}, {_share(hits, of):.1%} before"
        yield Change(detail, relative_change(found, hits, max(among, 1) / max(of, 1)))


def relative_change(found: int, before: int, exposed: float = 1.0) -> float:
    """How many times more or less, less 1, beyond CHANCE: 0.5 for half as many again and for a third fewer.

    exposed: how many times as many could have been found. 0 where there was nothing before, infinite where all is gone.
    """
    if not before:
        return 0.0
    if not found:
        return np.inf if before > CHANCE**2 else 0.0
    apart = abs(np.log(found / before / exposed)) - CHANCE * np.sqrt(1 / found + 1 / before)
    return float(np.expm1(max(apart, 0.0)))


def degree_shift(now: Profile, before: Profile) -> Change:
    """Between the histograms of friends a user."""
    size = stability_index(np.array(now["degrees"]), np.array(before["degrees"]))
    return Change("friends a user are spread otherwise", size)


def score_shifts(now: Profile, before: Profile) -> Iterator[Change]:
    """Between the scores at each rank that both nights kept, by tenths of those before.

    A ranker's scores have no zero and no unit, so those of a night are moved and scaled until the medians of the first
    and the last rank are 1 and 0.
    """
    usual, found = _scaled(before), _scaled(now)
    if not usual or found is None:
        return
    if not found:
        yield Change("scores at the first and the last rank are the same", np.inf)
    for rank in sorted(usual.keys() & found.keys(), key=int):
        edges = usual[rank][10:100:10]
        tenths = [_shares(night[rank], edges) * of[rank]["lists"] for night, of in ((found, now), (usual, before))]
        yield Change(f"scores at rank {rank} are spread otherwise", stability_index(*tenths))


def _scaled(scores: Profile) -> dict[str, Array] | None:
    """Percentiles by rank, scaled; empty where the ranks cannot be told apart, None where one has no scores."""
    ranks = sorted(scores, key=int)
    if len(ranks) < 2 or not all(scores[rank]["lists"] for rank in ranks):
        return None
    percentiles = {rank: np.array(scores[rank]["percentiles"]) for rank in ranks}
    first, last = (float(percentiles[rank][50]) for rank in (ranks[0], ranks[-1]))
    return {rank: (found - last) / (first - last) for rank, found in percentiles.items()} if first > last else {}


def _shares(percentiles: Array, edges: Array) -> Array:
    """Share of the scores between the edges; of those that equal an edge half on either side."""
    left, right = (np.searchsorted(percentiles, edges, side) for side in ("left", "right"))
    return np.diff((left + right) / 2 / len(percentiles), prepend=0.0, append=1.0)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
