"""Grows trees above the prior where there is enough to learn from.

They start from the prior's scores, and stop where users kept apart no longer gain, if there are enough to tell.
"""

from typing import Any

import numpy as np
import xgboost as xgb

from infra.settings import RankerSettings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import linear
from lookup_api.ranking.ranker_lists import Float64, Lists, clearly_better
from lookup_api.ranking.ranker_prior import MIN_LISTS
from lookup_api.ranking.ranker_trees import TreesRanker

TRUSTED_LISTS = 400
"""Validation lists from which on they may say when to stop; fewer are too noisy to tell good from lucky."""
USUAL_TREES = 120
"""Trees grown where too few lists can say when to stop, and at least."""
LABELS_PER_TREE = 8
"""Held-out friends behind each of those trees: more learn single friendships by heart, unless validation says not."""


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
    """Whether the users kept apart are clearly better off with `one`."""
    first, second = (TreesRanker(prior=prior, booster=booster).score(check.matrix) for booster in (one, other))
    return clearly_better(check, first, second)


def without_trees(params: dict[str, Any]) -> xgb.Booster:
    """A booster of no trees: its score is the margin alone."""
    nothing = xgb.DMatrix(np.zeros((1, len(FEATURES)), np.float32), np.zeros(1), group=[1])
    return xgb.train(params, nothing, 0)


def _matrix(lists: Lists, prior: Float64) -> xgb.DMatrix:
    data = xgb.DMatrix(lists.matrix, lists.label, group=np.diff(lists.offsets))
    data.set_base_margin(linear(lists.matrix, prior))
    return data
