"""The trained ranker: a linear prior and boosted trees on top of it, scored by one thread."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from infra.errors import CorruptArtifact
from lookup_api.ranking.features import FEATURES

RANKER_VERSION = 1
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranker:
    """score = prior . features + trees(features).

    booster: XGBoost trees, none where there was nothing to learn from. prior float64 [F]: weights of the linear part.
    features: names of the input's columns. told: what else model.json says about how it was learnt.
    """

    booster: xgb.Booster
    prior: npt.NDArray[np.float64]
    features: tuple[str, ...] = FEATURES
    told: dict[str, Any] = field(default_factory=dict)

    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows float32 [n, F]; higher is better, comparable within one viewer."""
        if not len(matrix):
            return np.empty(0, np.float32)
        margin = linear(matrix, self.prior)
        return np.asarray(self.booster.inplace_predict(matrix, base_margin=margin, predict_type="margin"), np.float32)

    def save(self, folder: Path) -> None:
        """Writes ranker.json (XGBoost's own format) and model.json."""
        self.booster.save_model(folder / "ranker.json")
        (folder / "model.json").write_text(json.dumps(self.head(), indent=1, sort_keys=True))

    def head(self) -> dict[str, Any]:
        """The content of model.json."""
        weights = {name: float(w) for name, w in zip(self.features, self.prior, strict=True) if w}
        return {
            "version": RANKER_VERSION,
            "xgboost": xgb.__version__,
            "features": list(self.features),
            "prior": weights,
            "trees": self.booster.num_boosted_rounds(),
            **self.told,
        }

    @classmethod
    def open(cls, folder: Path) -> "Ranker":
        """Reads a saved ranker. Raises CorruptArtifact where this code makes other columns than it learnt on."""
        head = json.loads((folder / "model.json").read_text())
        if head["version"] != RANKER_VERSION:
            raise CorruptArtifact(f"{folder}: ranker version {head['version']}, this code reads {RANKER_VERSION}")
        if tuple(head["features"]) != FEATURES:
            raise CorruptArtifact(
                f"{folder}: the ranker learnt on other features than the {len(FEATURES)} that this code makes",
                "Train it again with this version, or serve it with the version that made it.",
            )
        booster = xgb.Booster({"nthread": 1})
        booster.load_model(folder / "ranker.json")
        booster.set_param({"nthread": 1})
        prior = np.array([head["prior"].get(name, 0.0) for name in FEATURES])
        return cls(booster, prior)


def linear(matrix: Float32, weights: npt.NDArray[np.float64]) -> Float32:
    """matrix @ weights, summed in float64 column by column, so that it does not depend on how rows are batched."""
    total = np.zeros(len(matrix), np.float64)
    for at in np.flatnonzero(weights):
        total += matrix[:, at] * weights[at]
    return total.astype(np.float32)
