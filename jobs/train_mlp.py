"""How train_ranker learns a network: gnn trains and exports it, lookup_api.ranking runs it."""

from typing import Any

import numpy as np
import onnx
import onnxruntime

from gnn.mlp_export import to_int8, to_onnx
from gnn.mlp_train import ScoredLists, TrainedMlp, train_mlp, untrained
from gnn.runtime import prepare
from infra.settings import Settings
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.learning import learn_trees, report
from lookup_api.ranking.ranker import Float32, Float64, linear
from lookup_api.ranking.ranker_ensemble import EnsembleRanker
from lookup_api.ranking.ranker_lists import Lists, clearly_better
from lookup_api.ranking.ranker_mlp import MlpRanker
from lookup_api.ranking.ranker_prior import MIN_LISTS, learn_prior
from lookup_api.ranking.ranker_trees import TreesRanker

WIDE = np.array(
    [
        name.startswith(("viewer_", "candidate_")) or name in ("shared_attributes", "shared_affiliations")
        for name in FEATURES
    ]
)
"""Columns of FEATURES that span decades: counts and days."""
CALIBRATION_PAIRS = 16_384
"""Pairs that the ranges of int8 are measured on."""


def learn_mlp(train: Lists, check: Lists, settings: Settings) -> tuple[MlpRanker, dict[str, Any]]:
    """`learn_network`, and what to report about it."""
    ranker, told = learn_network(train, check, settings)
    return ranker, report(ranker, check, settings.run.seed) | told


def learn_ensemble(train: Lists, check: Lists, settings: Settings) -> tuple[EnsembleRanker, dict[str, Any]]:
    """Trees and a network, each learnt alone, and what to report about their mean."""
    run = settings.run
    trees, told = learn_trees(train, check, settings.ranker, run.threads, run.seed)
    ranker, told_too = joined(trees, train, check, settings)
    return ranker, report(ranker, check, run.seed) | told | told_too


def joined(trees: TreesRanker, train: Lists, check: Lists, settings: Settings) -> tuple[EnsembleRanker, dict[str, Any]]:
    """Trees that are learnt and a network learnt alone; for how long, and on how much."""
    network, told = learn_network(train, check, settings)
    return EnsembleRanker(prior=trees.prior, trees=trees, network=network), told


def learn_network(train: Lists, check: Lists, settings: Settings) -> tuple[MlpRanker, dict[str, Any]]:
    """The linear prior and a network learnt on `train`, stopped early on `check`; for how long, and on how much."""
    prepare(1, settings.run.seed)  # the products are small: threads would wait for each other longer than they work
    told, tested = train.telling(), check.telling()
    prior = learn_prior(told)
    trained = _trained(told, tested, prior, settings)
    ranker = exported(trained, prior, told.matrix, settings.ranker.precision)
    if clearly_better(tested, linear(tested.matrix, prior), ranker.score(tested.matrix)):
        trained = TrainedMlp(untrained(len(FEATURES), settings.ranker.hidden), trained.metrics | {"best_epoch": 0})
        ranker = exported(trained, prior, told.matrix, settings.ranker.precision)
    learnt = {"learn_lists": len(told.held), "learn_labels": int(told.label.sum())}
    return ranker, learnt | trained.metrics


def _trained(told: Lists, tested: Lists, prior: Float64, settings: Settings) -> TrainedMlp:
    if len(told.held) < MIN_LISTS:
        return TrainedMlp(untrained(len(FEATURES), settings.ranker.hidden), {"epochs": 0, "best_epoch": 0})
    scored, kept_apart = _scored(told, prior), _scored(tested, prior)
    return train_mlp(scored, kept_apart, WIDE, settings.ranker, settings.run.seed)


def _scored(lists: Lists, prior: Float64) -> ScoredLists:
    return ScoredLists(lists.matrix, lists.label, lists.offsets, linear(lists.matrix, prior))


def exported(trained: TrainedMlp, prior: Float64, sample: Float32, precision: str) -> MlpRanker:
    """The ranker as it is saved and served. sample float32 [n, F]: rows that int8 ranges are measured on."""
    model = trained.model
    network = to_onnx(model)
    precision = precision if len(sample) else "float32"
    if precision == "int8":
        network = to_int8(network, sample[:: max(1, len(sample) // CALIBRATION_PAIRS)])
    about = {
        "precision": precision,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "layers": [model.first.out_features, model.second.out_features],
        "scaling": {name: values.tolist() for name, values in model.scaling.arrays().items()},
    }
    return MlpRanker(prior=prior, network=network, about=about)
