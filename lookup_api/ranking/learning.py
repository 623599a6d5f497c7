"""Learns a ranker of trees, and reports what a ranker of any kind found."""

from dataclasses import replace
from typing import Any

import numpy as np

from infra.settings import RankerSettings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import Ranker, linear
from lookup_api.ranking.ranker_growth import grow, without_trees
from lookup_api.ranking.ranker_lists import Lists, ndcg, recall
from lookup_api.ranking.ranker_prior import MIN_LISTS, PRIOR_STRENGTH, fit_prior, learn_prior
from lookup_api.ranking.ranker_trees import TreesRanker

SIGNALS = {
    "common_neighbours": "common_neighbours",
    "resource_allocation": "resource_allocation",
    "personalised_pagerank": "log_walk",
    "joint_walk": "log_joint",
    "embedding": "embedding_dot",
    "factors": "factors",
}
"""Single features that the ranker is compared with: name in the metrics -> column."""
LEAST_WEIGHT = 0.01
"""Of a signal that stands alone: it orders as it is, even where those who learn would turn it round."""


def learn_trees(
    train: Lists, check: Lists, settings: RankerSettings, threads: int, seed: int
) -> tuple[TreesRanker, dict[str, Any]]:
    """The linear prior and trees learnt on `train`, stopped early on `check`; how many, and on how much."""
    told, tested = train.telling(), check.telling()
    prior = learn_prior(told)
    booster = grow(told, tested, prior, settings, threads, seed)
    learnt = {"learn_lists": len(told.held), "learn_labels": int(told.label.sum())}
    return TreesRanker(prior=prior, booster=booster), learnt | {"trees": booster.num_boosted_rounds()}


def of_one_signal(column: str, lists: Lists) -> TreesRanker:
    """Orders by one column of the features, in the unit of any ranker's scores: a conditional logit of it alone.

    Where the lists are too few to learn from, what the column varies by is the unit.
    """
    told, at = lists.telling(), FEATURES.index(column)
    spread = float(told.matrix[:, at].std()) if len(told.held) else 0.0
    spread = spread or 1.0
    weight = 1.0
    if len(told.held) >= MIN_LISTS:
        alone = replace(told, matrix=told.matrix[:, [at]] / np.float32(spread))
        weight = max(float(fit_prior(alone, np.array([0]), np.ones(1), PRIOR_STRENGTH)[0]), LEAST_WEIGHT)
    prior = np.zeros(len(FEATURES))
    prior[at] = weight / spread
    return TreesRanker(prior=prior, booster=without_trees({"base_score": 0.0, "nthread": 1}))


def report(ranker: Ranker, lists: Lists, seed: int) -> dict[str, Any]:
    """recall@20 and ndcg@20 of the ranker, of its prior and of single features on `lists`, and feature importance."""
    scores = {"ranker": ranker.score(lists.matrix), "prior": linear(lists.matrix, ranker.prior)}
    scores |= {name: lists.matrix[:, FEATURES.index(column)] for name, column in SIGNALS.items()}
    measured = {
        name: {"recall_at_20": recall(lists, score), "ndcg_at_20": ndcg(lists, score)} for name, score in scores.items()
    }
    gains = ranker.gains()
    return {
        "kind": ranker.kind,
        "validation": measured,
        "validation_users": len(lists.held),
        "importance": shares(shuffling_costs(ranker, lists, seed) if gains is None else gains),
    }


def shares(gains: dict[str, float]) -> dict[str, float]:
    """Each gain as a share of all, the largest first."""
    total = sum(gains.values()) or 1.0
    importance = {name: round(value / total, 4) for name, value in gains.items()}
    return dict(sorted(importance.items(), key=lambda item: -item[1]))


def shuffling_costs(ranker: Ranker, lists: Lists, seed: int, most: int = 200) -> dict[str, float]:
    """nDCG lost when one feature's values are shuffled among the pairs of at most `most` lists (Breiman, 2001)."""
    told = lists.telling()
    step = max(1, -(-len(told.held) // most))
    sample = told.where(np.arange(len(told.held)) % step == 0)
    whole = ndcg(sample, ranker.score(sample.matrix))
    lost = {}
    for at, name in enumerate(FEATURES):
        draw = np.random.default_rng(np.random.SeedSequence([seed, at]))
        matrix = sample.matrix.copy()
        matrix[:, at] = draw.permutation(matrix[:, at])
        lost[name] = max(0.0, whole - ndcg(sample, ranker.score(matrix)))
    return {name: cost for name, cost in lost.items() if cost}
