"""Learns a ranker: a linear listwise prior, and boosted trees on top of it where there is enough to learn from.

The prior is a softmax over a user's candidates (a conditional logit, McFadden 1974; ListNet's top-one loss, Cao et al.,
ICML 2007) whose weights are drawn towards defaults that hold on many networks: with few labels it stays near them. The
trees start from its scores, and stop where users kept apart no longer gain, if there are enough of them to tell.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from infra.errors import GateRefused
from infra.graph import Int64
from infra.settings import RankerSettings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import Ranker, linear

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PRIOR = {
    "log_joint": 0.5,
    "log_joint_back": 0.0,
    "log_walk": 0.3,
    "log_walk_back": 0.2,
    "log_allocation": 0.0,
    "common_neighbours": 0.8,
    "salton": 0.0,
    "attribute_lift": 0.0,
    "attribute_affinity": 0.0,
    "affiliation_lift": 0.0,
    "affiliation_affinity": 0.0,
    "embedding_dot": 0.5,
    "factors": 0.3,
    "factors_back": 0.3,
}
"""Default weights of the linear prior; only these columns are part of it."""
PRIOR_STRENGTH = 3.0
"""Curvature that holds each weight at its default, in the unit of one user's list."""
MIN_LISTS = 20
"""Lists with a held-out friend below which the defaults are kept and no tree is grown."""
TRUSTED_LISTS = 400
"""Validation lists from which on they may say when to stop; fewer are too noisy to tell good from lucky."""
USUAL_TREES = 120
"""Trees grown where too few lists can say when to stop, and at least."""
LABELS_PER_TREE = 8
"""Held-out friends behind each of those trees: more learn single friendships by heart, unless validation says not."""
SIGNALS = {
    "common_neighbours": "common_neighbours",
    "resource_allocation": "resource_allocation",
    "personalised_pagerank": "log_walk",
    "joint_walk": "log_joint",
    "embedding": "embedding_dot",
    "factors": "factors",
}
"""Single features that the ranker is compared with: name in the metrics -> column."""


@dataclass(frozen=True)
class Lists:
    """Candidate lists of Q users.

    matrix float32 [n, F]; label bool [n]; offsets int64 [Q + 1]; held int64 [Q]: held-out friends of each user, in the
    list or not.
    """

    matrix: Float32
    label: Bools
    offsets: Int64
    held: Int64

    @property
    def query(self) -> Int64:
        return np.repeat(np.arange(len(self.held)), np.diff(self.offsets))

    def telling(self) -> "Lists":
        """Only the lists that hold both a held-out friend and someone else."""
        hits = np.diff(np.concatenate([[0], np.cumsum(self.label)])[self.offsets])
        return self.where((hits > 0) & (hits < np.diff(self.offsets)))

    def where(self, chosen: Bools) -> "Lists":
        sizes = np.diff(self.offsets)
        rows = np.repeat(chosen, sizes)
        offsets = np.concatenate([[0], np.cumsum(sizes[chosen])]).astype(np.int64)
        return Lists(self.matrix[rows], self.label[rows], offsets, self.held[chosen])


def learn(
    train: Lists, check: Lists, settings: RankerSettings, threads: int, seed: int
) -> tuple[Ranker, dict[str, Any]]:
    """The ranker learnt on `train`, stopped early on `check`, and what to report about it."""
    told, tested = train.telling(), check.telling()
    prior = default_prior()
    if len(told.held) >= MIN_LISTS:
        columns = np.array([FEATURES.index(name) for name in PRIOR])
        prior[columns] = fit_prior(told, columns, prior[columns], PRIOR_STRENGTH)
    booster = grow(told, tested, prior, settings, threads, seed)
    ranker = Ranker(booster, prior)
    return ranker, report(ranker, check) | {"learn_lists": len(told.held), "learn_labels": int(told.label.sum())}


def default_prior() -> Float64:
    return np.array([PRIOR.get(name, 0.0) for name in FEATURES])


def fit_prior(lists: Lists, columns: npt.NDArray[np.int64], start: Float64, strength: float) -> Float64:
    """Weights of `columns` by Newton's method on the listwise softmax loss, held at `start` by a quadratic penalty.

    A list counts as the square root of its held-out friends: more labels tell more, but not in proportion.
    """
    x = lists.matrix[:, columns].astype(np.float64)
    q, sizes = lists.query, np.diff(lists.offsets)
    first = lists.offsets[:-1]
    x -= (np.add.reduceat(x, first) / sizes[:, None])[q]
    hits = np.add.reduceat(lists.label.astype(np.float64), first)
    share = lists.label / np.sqrt(hits)[q]
    total = np.sqrt(hits)

    def loss(w: Float64) -> tuple[float, Float64]:
        s = x @ w
        top = np.maximum.reduceat(s, first)
        e = np.exp(s - top[q])
        z = np.add.reduceat(e, first)
        value = (total * (top + np.log(z))).sum() - share @ s + 0.5 * strength * np.square(w - start).sum()
        return float(value), e / z[q]

    w = start.copy()
    value, p = loss(w)
    for _ in range(30):
        pull = total[q] * p
        gradient = x.T @ (pull - share) + strength * (w - start)
        mean = np.add.reduceat(x * p[:, None], first)
        curvature = x.T @ (x * pull[:, None]) - (mean * total[:, None]).T @ mean + strength * np.eye(len(w))
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while (better := loss(w - size * step))[0] >= value and size > 1e-4:
            size /= 2
        if better[0] >= value:
            break
        w, gain = w - size * step, value - better[0]
        value, p = better
        if gain < 1e-7 * abs(value):
            break
    return w


def grow(train: Lists, check: Lists, prior: Float64, settings: RankerSettings, threads: int, seed: int) -> xgb.Booster:
    """Trees on top of the prior; none where there are too few lists, or where `check` clearly loses by them."""
    params = {
        "objective": "rank:ndcg",
        "eval_metric": "ndcg@20",
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": 20,
        "eta": settings.learning_rate,
        "max_depth": settings.depth,
        "min_child_weight": 0.1,
        "reg_lambda": 10.0,
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "tree_method": "hist",
        "base_score": 0.0,
        "nthread": threads,
        "seed": seed,
    }
    if len(train.held) < MIN_LISTS:
        return without_trees(params)
    data = _matrix(train, prior)
    if len(check.held) < TRUSTED_LISTS:
        booster = xgb.train(params, data, min(USUAL_TREES, settings.trees))
        few = int(train.label.sum()) // LABELS_PER_TREE
        if few < booster.num_boosted_rounds():
            fewer = booster[:few] if few else without_trees(params)
            booster = booster if _gains(check, booster, fewer, prior) else fewer
    else:
        booster = xgb.train(
            params,
            data,
            settings.trees,
            evals=[(_matrix(check, prior), "check")],
            early_stopping_rounds=USUAL_TREES // 2,
            verbose_eval=False,
        )
        booster = booster[: max(booster.best_iteration + 1, min(USUAL_TREES, booster.num_boosted_rounds()))]
    nothing = without_trees(params)
    return nothing if _gains(check, nothing, booster, prior) else booster


def _gains(check: Lists, one: xgb.Booster, other: xgb.Booster, prior: Float64) -> bool:
    """Whether nDCG is higher with `one` than with `other` by more than twice the standard error of the difference."""
    if len(check.held) < 2:
        return False
    found = [ndcgs(check, Ranker(booster, prior).score(check.matrix)) for booster in (one, other)]
    gain = found[0] - found[1]
    return bool(gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)))


def without_trees(params: dict[str, Any]) -> xgb.Booster:
    """A booster of no trees: its score is the margin alone."""
    nothing = xgb.DMatrix(np.zeros((1, len(FEATURES)), np.float32), np.zeros(1), group=[1])
    return xgb.train(params, nothing, 0)


def _matrix(lists: Lists, prior: Float64) -> xgb.DMatrix:
    data = xgb.DMatrix(lists.matrix, lists.label, group=np.diff(lists.offsets))
    data.set_base_margin(linear(lists.matrix, prior))
    return data


def refuse_leak(lists: Lists, most: float = 0.999, labels: int = 50, sampled: int = 200_000) -> None:
    """Raises GateRefused if one feature alone tells held-out friends from others, which only a leak of the label can.

    most: the area under the ROC curve from which on a feature is a leak. labels: fewer than these prove nothing.
    """
    positive = lists.matrix[lists.label]
    if len(positive) < labels:
        return
    others = np.flatnonzero(~lists.label)
    negative = lists.matrix[others[:: max(1, len(others) // sampled)]]
    for at, name in enumerate(FEATURES):
        area = area_under_roc(positive[:, at], negative[:, at])
        if max(area, 1 - area) > most:
            raise GateRefused(
                f"ranker: feature {name} alone separates held-out friendships from others (AUC {area:.5f})",
                "It knows the answer: check that it is computed on the past view without the held-out friendships.",
            )


def area_under_roc(positive: Float32, negative: Float32) -> float:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / 2 / len(negative))


def report(ranker: Ranker, lists: Lists) -> dict[str, Any]:
    """recall@20 and ndcg@20 of the ranker, of its prior and of single features on `lists`, and feature importance."""
    scores = {"ranker": ranker.score(lists.matrix), "prior": linear(lists.matrix, ranker.prior)}
    scores |= {name: lists.matrix[:, FEATURES.index(column)] for name, column in SIGNALS.items()}
    measured = {
        name: {"recall_at_20": recall(lists, score), "ndcg_at_20": ndcg(lists, score)} for name, score in scores.items()
    }
    gain = ranker.booster.get_score(importance_type="total_gain")
    total = sum(gain.values()) or 1.0  # type: ignore[arg-type]
    importance = {FEATURES[int(key[1:])]: round(value / total, 4) for key, value in gain.items()}  # type: ignore[operator]
    return {
        "validation": measured,
        "validation_users": len(lists.held),
        "trees": ranker.booster.num_boosted_rounds(),
        "importance": dict(sorted(importance.items(), key=lambda item: -item[1])),
    }


def ranks(lists: Lists, score: Float32) -> Int64:
    """Position of each row in its list by falling score, from 0, int64 [n]."""
    order = np.lexsort((-score, lists.query))
    out = np.empty(len(order), np.int64)
    out[order] = np.arange(len(order)) - lists.offsets[lists.query[order]]
    return out


def recall(lists: Lists, score: Float32, k: int = 20) -> float:
    """Mean over users of hits among the first k / min(k, held-out friends)."""
    hit = lists.label & (ranks(lists, score) < k)
    found = np.bincount(lists.query[hit], minlength=len(lists.held))
    return float((found / np.clip(lists.held, 1, k)).mean()) if len(lists.held) else 0.0


def ndcg(lists: Lists, score: Float32, k: int = 20) -> float:
    """Mean over users of binary nDCG at k, the ideal over all held-out friends."""
    return float(ndcgs(lists, score, k).mean()) if len(lists.held) else 0.0


def ndcgs(lists: Lists, score: Float32, k: int = 20) -> Float64:
    """nDCG at k of each list, float64 [Q]."""
    rank = ranks(lists, score)
    hit = lists.label & (rank < k)
    found = np.bincount(lists.query[hit], 1 / np.log2(rank[hit] + 2), minlength=len(lists.held))
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return np.asarray(found / ideal[np.clip(lists.held, 1, k) - 1])
