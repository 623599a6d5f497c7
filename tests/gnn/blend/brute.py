"""Greedy picks by brute force: one user, a determinant for every candidate at every pick.

In 80-bit floats and one candidate like the other, so that equal candidates get equal gains, and rounding stays far
below that of the float64 under test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

NOTHING = 1e-15
"""A squared height of unit rows below this is 0 but for rounding."""


Gain = Callable[[list[int]], np.ndarray]
"""What each candidate adds to the picks so far: [N]."""


def greedy(gain: Gain, valid: np.ndarray, picks: int) -> list[int]:
    """The lowest position of the highest gain, again and again."""
    chosen: list[int] = []
    while len(chosen) < min(picks, valid.sum()):
        chosen.append(int(_open(gain, valid, chosen).argmax()))
    return chosen + [-1] * (picks - len(chosen))


def differs(found: list[int], gain: Gain, valid: np.ndarray, rounding: float) -> bool:
    """Whether any pick is another than the best given those before it, and by more than this share of its gain."""
    chosen: list[int] = []
    for pick in found[: min(len(found), valid.sum())]:
        gains = _open(gain, valid, chosen)
        best = gains.argmax()
        if pick != best and not gains[best] * (1 - rounding) <= gains[pick] < gains[best]:
            return True
        chosen.append(pick)
    return found[len(chosen) :] != [-1] * (len(found) - len(chosen))


def _open(gain: Gain, valid: np.ndarray, chosen: list[int]) -> np.ndarray:
    gains = np.where(valid, gain(chosen), -np.inf)
    gains[chosen] = -np.inf
    return gains


def recent(chosen: list[int], window: int | None) -> list[int]:
    return chosen if window is None else chosen[max(0, len(chosen) - window + 1) :]


def products(embeddings: np.ndarray) -> np.ndarray:
    """All inner products [N, N], each summed in the same order."""
    return sum(column[:, None] * column for column in embeddings.astype(np.longdouble).T)


def determinants(kernel: np.ndarray, chosen: list[int], nothing: float) -> np.ndarray:
    """Of a kernel [N, N], those of the submatrices of `chosen` and j, for every j, by elimination: [N]."""
    rows = np.column_stack([np.tile(np.array(chosen, dtype=int), (len(kernel), 1)), np.arange(len(kernel))])
    minors = kernel[rows[:, :, None], rows[:, None, :]]
    result = np.ones(len(kernel), dtype=np.longdouble)
    for k in range(rows.shape[1]):
        pivot = np.where(minors[:, k, k] > nothing, minors[:, k, k], 0)
        result *= pivot
        factor = minors[:, k + 1 :, k] / np.where(pivot > 0, pivot, 1)[:, None]
        minors[:, k + 1 :] -= factor[:, :, None] * minors[:, k, None]
    return result


def ssd(relevance, embeddings, valid, picks, gamma: float, window: int | None) -> list[int]:
    gram = products(embeddings)
    gain = lambda chosen: relevance + gamma * np.sqrt(determinants(gram, recent(chosen, window), NOTHING))  # noqa: E731
    return greedy(gain, valid, picks)


def determinant_gain(relevance, embeddings, theta: float, window: int | None) -> Gain:
    quality = np.exp(theta / (2 * (1 - theta)) * relevance.astype(np.longdouble))
    kernel = quality[:, None] * products(embeddings) * quality + 1e-6 * np.eye(len(relevance))
    return lambda chosen: determinants(kernel, recent(chosen, window), 0)


def mmr(relevance, embeddings, valid, picks, share: float) -> list[int]:
    alike = products(embeddings)
    gain = lambda chosen: share * relevance - (1 - share) * (alike[:, chosen].max(axis=1) if chosen else 0)  # noqa: E731
    return greedy(gain, valid, picks)


def spacing(relevance, groups, valid, picks, weight: float, window: int | None) -> list[int]:
    """In fractions: sums of 1 / d often tie with each other."""
    members = [set(row[row >= 0].tolist()) for row in groups]
    scores, exact_weight = np.array([Fraction(r) for r in relevance]), Fraction(weight).limit_denominator(100)

    def gain(chosen: list[int]) -> np.ndarray:
        near = [(d, members[i]) for d, i in enumerate(reversed(recent(chosen, window)), 1)]
        penalty = [sum((Fraction(1, d) for d, theirs in near if theirs & own), Fraction()) for own in members]
        return scores - exact_weight * np.array(penalty)

    return greedy(gain, valid, picks)


def spaced_spectrum(
    relevance, embeddings, groups, valid, picks, gamma: float, weight: float, window: int | None
) -> list[int]:
    """Gains that differ by less than 1e-11 are equal: sums of 1 / d often tie with each other."""
    members = [set(row[row >= 0].tolist()) for row in groups]
    gram = products(embeddings)

    def gain(chosen: list[int]) -> np.ndarray:
        near = recent(chosen, window)
        shared = [(d, members[i]) for d, i in enumerate(reversed(near), 1)]
        penalty = [sum(1 / d for d, theirs in shared if theirs & own) for own in members]
        volumes = np.sqrt(determinants(gram, near, NOTHING))
        return np.round(relevance + gamma * volumes - weight * np.array(penalty, np.longdouble), 11)

    return greedy(gain, valid, picks)


@dataclass(frozen=True)
class Case:
    """A batch of users of one shape, with duplicates, zero vectors, equal relevances and masks among them."""

    relevance: torch.Tensor
    embeddings: torch.Tensor
    groups: torch.Tensor
    valid: torch.Tensor
    picks: int
    window: int
    share: float

    def user(self, i: int, traits: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        return self.relevance[i].double().numpy(), traits[i].double().numpy(), self.valid[i].numpy(), self.picks


def cases(shapes: int, users: int, seed: int) -> Sequence[Case]:
    draw = np.random.default_rng(seed)
    return [_case(draw, users) for _ in range(shapes)]


def _case(draw: np.random.Generator, users: int) -> Case:
    candidates, width = int(draw.integers(1, 25)), int(draw.integers(1, 13))
    relevance = draw.random((users, candidates))
    relevance = np.where(draw.random((users, 1)) < 0.3, np.round(relevance * 4) / 4, relevance)
    embeddings = draw.standard_normal((users, candidates, width))
    embeddings /= np.linalg.norm(embeddings, axis=2, keepdims=True)
    embeddings[draw.random((users, candidates)) < draw.choice([0, 0.1, 0.3])] = 0
    groups = draw.integers(-1, 6, (users, candidates, 3))
    twins = draw.random((users, candidates)) < draw.choice([0, 0.2, 0.5])
    source = np.where(twins, draw.integers(0, candidates, (users, candidates)), np.arange(candidates))
    relevance = np.where(draw.random((users, 1)) < 0.5, np.take_along_axis(relevance, source, 1), relevance)
    embeddings = np.take_along_axis(embeddings, source[:, :, None], 1)
    return Case(
        torch.tensor(relevance, dtype=torch.float32),
        torch.tensor(embeddings, dtype=torch.float32),
        torch.tensor(groups),
        torch.tensor(draw.random((users, candidates)) < draw.choice([0.5, 0.9, 1], (users, 1))),
        picks=int(draw.integers(0, 17)),
        window=int(draw.integers(1, 9)),
        share=float(draw.choice([0.0, 0.3, 0.5, 0.7])),
    )
