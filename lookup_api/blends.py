"""The blends of gnn.blend in numpy, one list at a time: what is ranked live is made diverse as at night, without torch.

Formulas, windows and ties are those of gnn.blend.{mmr,dpp,ssd,spacing}, where the papers are named. Greedy picks do not
depend on later ones, so the first PICKS places are blended and the rest stay in order.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

PICKS = 50
WINDOW = 10
"""Picks, with the next, that look at each other; that of gnn.blend.lists."""
RIDGE, FLAT = 1e-6, 1e-12

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Objective(Protocol):
    """What a list gains by each candidate after the picks so far."""

    preference: Float64 | None

    def gains(self, picked: Sequence[int]) -> tuple[Float64, Callable[[int], float]]:
        """float64 [N], and how far gains equal to that at a place may lie apart by rounding."""
        ...


def blended(
    name: str, diversity: float, scores: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32],
    groups: Sequence[Sequence[int]],
) -> Int64:  # fmt: skip
    """The order of a list once diversity counts, places int64 [N].

    scores [N]: best first. vectors [N, D]: embeddings, for those that compare by them. groups: of each person, for
    spacing. name, diversity: settings rank.blend and rank.diversity.
    """
    everybody = np.arange(len(scores))
    if name == "none" or len(scores) < 2:
        return everybody
    relevance = _to_unit(scores)
    made: dict[str, Callable[[], Objective]] = {
        "mmr": lambda: _Marginal((1 - diversity) * relevance, vectors.astype(np.float64), diversity),
        "dpp": lambda: _Determinant(relevance, vectors.astype(np.float64), 1 - diversity),
        "ssd": lambda: _Volume(relevance, vectors.astype(np.float64), diversity),
        "spacing": lambda: _Spaced(relevance, groups, diversity),
    }
    first = _greedy(made[name](), len(scores), min(PICKS, len(scores)))
    return np.concatenate([first, np.setdiff1d(everybody, first)])


def _to_unit(scores: npt.NDArray[np.float32]) -> Float64:
    """To [0, 1] by the list's least and greatest, rounded to float32 as at night."""
    wide = scores.astype(np.float64)
    spread = wide.max() - wide.min()
    unit = (wide - wide.min()) / spread if spread > 0 else np.zeros_like(wide)
    return unit.astype(np.float32).astype(np.float64)


def _greedy(objective: Objective, people: int, picks: int) -> Int64:
    picked: list[int] = []
    barred = np.zeros(people)
    for _ in range(picks):
        gains, rounding = objective.gains(picked)
        left = gains + barred
        best = int(left.argmax())
        close = left >= left[best] - rounding(best)
        if objective.preference is None:
            chosen = int(close.argmax())
        else:
            chosen = int(np.where(close, objective.preference, -np.inf).argmax())
        picked.append(chosen)
        barred[chosen] = -np.inf
    return np.array(picked, np.int64)


class _Marginal:
    preference: Float64 | None = None

    def __init__(self, scores: Float64, vectors: Float64, weight: float) -> None:
        self._scores, self._alike, self._weight = scores, vectors @ vectors.T, weight
        self._nearest = np.zeros(len(scores))

    def gains(self, picked: Sequence[int]) -> tuple[Float64, Callable[[int], float]]:
        if picked:
            last = self._alike[picked[-1]]
            self._nearest = last if len(picked) == 1 else np.maximum(self._nearest, last)
        return self._scores - self._weight * self._nearest, lambda best: 1e-14 * self._weight


class _Spaced:
    preference: Float64 | None = None

    def __init__(self, scores: Float64, groups: Sequence[Sequence[int]], weight: float) -> None:
        self._scores, self._weight = scores, weight
        self._shared = np.zeros((len(scores), len(scores)))
        members: dict[int, list[int]] = {}
        for place, of in enumerate(groups):
            for group in of:
                members.setdefault(group, []).append(place)
        for places in members.values():
            self._shared[np.ix_(places, places)] = 1

    def gains(self, picked: Sequence[int]) -> tuple[Float64, Callable[[int], float]]:
        out = self._scores.copy()
        for distance, one in enumerate(reversed(picked[-(WINDOW - 1) :]), 1):
            out -= self._weight / distance * self._shared[one]
        return out, lambda best: self._weight * 1e-14


class _Determinant:
    def __init__(self, scores: Float64, vectors: Float64, theta: float) -> None:
        sharpness = theta / (2 * (1 - theta))
        self._span = _Span(vectors * np.sqrt(np.exp(2 * sharpness * scores))[:, None], RIDGE)
        self.preference: Float64 | None = self._span.whole

    def gains(self, picked: Sequence[int]) -> tuple[Float64, Callable[[int], float]]:
        return self._span.over(picked)[0], lambda best: float(self._span.whole[best]) * 1e-15


class _Volume:
    preference: Float64 | None = None

    def __init__(self, scores: Float64, vectors: Float64, gamma: float) -> None:
        self._scores, self._gamma = scores, gamma
        self._span = _Span(vectors, 0.0)

    def gains(self, picked: Sequence[int]) -> tuple[Float64, Callable[[int], float]]:
        left, volume = self._span.over(picked)
        heights = np.sqrt(left)
        rounding = self._gamma * 2e-15 * volume
        return self._scores + self._gamma * volume * heights, lambda best: rounding / max(float(heights[best]), 1e-6)


class _Span:
    """What candidates, rows float64 [N, D], add to the last WINDOW - 1 picks: see gnn.blend.span."""

    def __init__(self, rows: Float64, ridge: float) -> None:
        self._rows, self._ridge = rows, ridge
        self.whole: Float64 = np.square(rows).sum(axis=1) + ridge

    def over(self, picked: Sequence[int]) -> tuple[Float64, float]:
        """Squared heights float64 [N] over the picks that count, and the volume that these span."""
        window = picked[-(WINDOW - 1) :]
        basis = np.zeros((len(window), self._rows.shape[1]))
        volume = 1.0
        for at, one in enumerate(window):
            row, before = self._rows[one], basis[:at]
            shares = before @ row
            left = float(self._cleaned(np.array(self.whole[one] - shares @ shares)))
            volume *= left**0.5
            basis[at] = (row - shares @ before) * (left**0.5 / max(left, FLAT))
        return self._cleaned(self.whole - np.square(self._rows @ basis.T).sum(axis=1)), volume

    def _cleaned(self, left: Float64) -> Float64:
        return np.maximum(left, self._ridge) if self._ridge else np.where(left <= FLAT, 0.0, left)
