"""Full-corpus ranking metrics: every person of the network competes for every list, no sampled negatives.

Lists are int32 [Q, K] candidate rows, best first, padded with -1: one list for each of Q asked users, who each have at
least one hidden friend. A padded place is a miss.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Int32, Int64
from lookup_api.ranking.sources import NAMES

Float64 = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]

DEPTH = 100
"""Places of a list that are looked at."""

TOP = 20
FIRST = 5
"""Places a person sees without scrolling."""
RANKER = "pymk"
"""Name of a release's own ranking beside the heuristics."""
UNBLENDED = "pymk before the blend"
BY_SCORE = "pymk by score alone"
"""Name of what it would be without the price of exposure and without a blend."""
BOOTSTRAP_ROUNDS = 1000
SIMILARITY_BLOCK = 512
INTERVAL = 0.95


@dataclass(frozen=True)
class PerUser:
    """One value for each asked user, float64 [Q], between 0 and 1."""

    recall_5: Float64
    recall_20: Float64
    recall_100: Float64
    ndcg_20: Float64
    mrr: Float64

    NAMES: ClassVar = {
        "recall@5": "recall_5",
        "recall@20": "recall_20",
        "recall@100": "recall_100",
        "ndcg@20": "ndcg_20",
        "mrr": "mrr",
    }

    def means(self, chosen: npt.NDArray[Any] | slice = slice(None)) -> dict[str, float | None]:
        """Mean of each metric over the chosen users, None where nobody is chosen."""
        return {name: _mean(getattr(self, field)[chosen]) for name, field in self.NAMES.items()}

    def where(self, chosen: npt.NDArray[np.bool_]) -> "PerUser":
        return PerUser(**{field: getattr(self, field)[chosen] for field in self.NAMES.values()})

    def matrix(self) -> Float64:
        """All metrics side by side in the order of NAMES, float64 [Q, M]."""
        return np.stack([getattr(self, field) for field in self.NAMES.values()], axis=1)

    def intervals(self, seed: int) -> dict[str, tuple[float, float] | None]:
        """Bootstrap interval of each mean."""
        if not len(self.mrr):
            return dict.fromkeys(self.NAMES)
        drawn = resampled_means(self.matrix(), seed)
        return {name: interval_of(drawn[:, at]) for at, name in enumerate(self.NAMES)}


def find_hits(lists: Int32, asked: Int32 | Int64, hidden: Csr) -> Hits:
    """Which places of the lists name a hidden friend of the asked row; hidden has a row for every user."""
    users = max(hidden.rows, 1)
    keys = np.repeat(np.arange(hidden.rows, dtype=np.int64), hidden.degrees()) * users + hidden.indices
    wanted = np.asarray(asked, np.int64)[:, None] * users + lists
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    found = keys[at] == wanted if len(keys) else np.zeros(lists.shape, bool)
    return found & (lists >= 0)


def per_user(hits: Hits, hidden_count: Int64) -> PerUser:
    """Every metric of each user. hits bool [Q, K]; hidden_count int64 [Q], at least 1."""
    return PerUser(
        recall_5=recall_at(hits, hidden_count, FIRST),
        recall_20=recall_at(hits, hidden_count, TOP),
        recall_100=recall_at(hits, hidden_count, DEPTH),
        ndcg_20=ndcg_at(hits, hidden_count, TOP),
        mrr=reciprocal_rank(hits),
    )


def recall_at(hits: Hits, hidden_count: Int64, k: int) -> Float64:
    """Hits among the first k, over the most there could be: min(k, hidden)."""
    recall: Float64 = hits[:, :k].sum(axis=1) / np.minimum(k, hidden_count)
    return recall


def ndcg_at(hits: Hits, hidden_count: Int64, k: int) -> Float64:
    """Normalised discounted cumulative gain, gains 0 or 1 (Järvelin and Kekäläinen, TOIS 2002)."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discounts)[np.minimum(k, hidden_count) - 1]
    first = hits[:, :k]
    gain: Float64 = first @ discounts[: first.shape[1]] / best
    return gain


def reciprocal_rank(hits: Hits, depth: int = DEPTH) -> Float64:
    """1 / rank of the first hit among the first `depth`, 0 without one."""
    first = hits[:, :depth]
    if not first.shape[1]:
        return np.zeros(len(hits))
    return np.where(first.any(axis=1), 1 / (first.argmax(axis=1) + 1), 0.0)


def exposure(lists: Int32, users: int, k: int = TOP) -> Int64:
    """How often each of `users` rows is shown among the first k, int64 [users]."""
    shown = lists[:, :k]
    return np.bincount(shown[shown >= 0], minlength=users)


def coverage(shown: Int64) -> float | None:
    """Share of all users who are shown to somebody."""
    return _mean(shown > 0)


def gini(shown: Int64) -> float | None:
    """Gini coefficient of exposure: 0 when all are shown equally often, near 1 when few get it all."""
    total = shown.sum()
    if not total:
        return None
    ordered, n = np.sort(shown), len(shown)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))


def top_share(shown: Int64, share: float = 0.01) -> float | None:
    """Share of all exposure that the most shown `share` of users (at least one) get."""
    total = shown.sum()
    if not total:
        return None
    top = max(1, round(share * len(shown)))
    return float(np.sort(shown)[-top:].sum() / total)


def resampled_means(values: Float64, seed: int, rounds: int = BOOTSTRAP_ROUNDS) -> Float64:
    """Means over users drawn anew (the bootstrap of Efron and Tibshirani, 1993), float64 [rounds, ...] from [Q, ...].

    The same draws for all columns of the values, and for all values of as many users, so that what is compared is
    compared on the same users.
    """
    users = len(values)
    rng = np.random.default_rng(np.random.SeedSequence([seed, users]))
    return np.stack([values[rng.integers(0, users, users)].mean(axis=0) for _ in range(rounds)])


def interval_of(drawn: Float64) -> tuple[float, float]:
    """Percentile interval of what was drawn, float64 [rounds]."""
    low, high = np.quantile(drawn, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)


def list_similarity(lists: Int32, vectors: npt.NDArray[np.float32], k: int = TOP) -> float | None:
    """Mean cosine of two people among the first k of a list, mean over the lists with two people or more.

    vectors float32 [N, D]: unit rows. A sum over pairs is (|sum of vectors|^2 - n) / 2.
    """
    found = []
    for start in range(0, len(lists), SIMILARITY_BLOCK):
        shown = lists[start : start + SIMILARITY_BLOCK, :k]
        there = shown >= 0
        count = there.sum(axis=1)
        total = np.einsum("qkd,qk->qd", vectors[np.where(there, shown, 0)], there, dtype=np.float64)
        able = count > 1
        cosine = (np.square(total).sum(axis=1) - count)[able] / (count * (count - 1))[able]
        found.append(cosine)
    return _mean(np.concatenate(found)) if found else None


def spread(lists: Int32, users: int) -> dict[str, float | None]:
    """How evenly the first TOP places are spread over all users."""
    shown = exposure(lists, users)
    return {"coverage": coverage(shown), "gini": gini(shown), "top_1_percent_share": top_share(shown)}


def by_source(hits: Hits, bits: npt.NDArray[np.uint8], hidden_count: Int64) -> dict[str, dict[str, float | None]]:
    """Recall of lists counting only whom a source named, and at TOP only whom no other named.

    bits uint8 [Q, K]: who named each person shown. {source: {"recall@5", "recall@20", "recall@100", "alone@20"}}.
    """
    found = {}
    for bit, name in NAMES.items():
        named = hits & ((bits & bit) > 0)
        recalls = {f"recall@{k}": _mean(recall_at(named, hidden_count, k)) for k in (FIRST, TOP, DEPTH)}
        found[name] = recalls | {f"alone@{TOP}": _mean(recall_at(hits & (bits == bit), hidden_count, TOP))}
    return found


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
