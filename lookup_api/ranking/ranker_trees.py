"""Boosted trees above the prior: XGBoost, saved as its own JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xgboost as xgb

from infra.errors import CorruptArtifact
from infra.hashing import ContentHash
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import Float32, Float64, Ranker

FILE = "ranker.json"


@dataclass(frozen=True, kw_only=True)
class TreesRanker(Ranker):
    """booster: trees whose leaves add to the prior's score; none where there was nothing to learn from."""

    kind: ClassVar[str] = "trees"
    booster: xgb.Booster

    def above(self, matrix: Float32, margin: Float32) -> Float32:
        return np.asarray(self.booster.inplace_predict(matrix, base_margin=margin, predict_type="margin"), np.float32)

    def write(self, folder: Path) -> None:
        self.booster.save_model(folder / FILE)

    def details(self) -> dict[str, Any]:
        return {"xgboost": xgb.__version__, "trees": self.booster.num_boosted_rounds()}

    def gains(self) -> dict[str, float]:
        found = self.booster.get_score(importance_type="total_gain")
        return {FEATURES[int(key[1:])]: float(value) for key, value in found.items()}  # type: ignore[arg-type]

    def content_hash(self) -> str:
        trees = self.booster.save_raw("json").decode()
        return ContentHash().text("trees", trees).json("model", self.head()).hexdigest()

    @classmethod
    def read(cls, folder: Path, prior: Float64, head: dict[str, Any]) -> "TreesRanker":
        booster = xgb.Booster({"nthread": 1})
        try:
            booster.load_model(folder / FILE)
        except xgb.core.XGBoostError as error:
            raise CorruptArtifact(f"{folder / FILE}: {str(error).splitlines()[0]}", "Train the ranker again.") from None
        booster.set_param({"nthread": 1})
        return cls(prior=prior, booster=booster)
