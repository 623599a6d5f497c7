"""Trees as models: XGBoost's own JSON, or its binary form, UBJ.

LightGBM is no kind: its reader ends the whole process where a file is damaged. Its models run as ONNX.
"""

import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost as xgb

from infra.errors import CorruptArtifact
from infra.model_spec import ModelSpec
from lookup_api.ranking.scorers import CPU, CUDA, Float32, Scorer, file_of, refuse_width

SPARE: deque[xgb.Booster] = deque()
"""Of models that were closed, to open the next by. XGBoost keeps some hundred bytes for every thread that scored by a
Booster and is not the one that frees it, for as long as the thread lives: a leaf would grow with every load."""
MOST_SPARE = 2
"""As many as load at once by default: each holds the memory of its last model."""


@dataclass(frozen=True, kw_only=True)
class XgboostScorer(Scorer):
    """weights: model.json or model.ubj, as `Booster.save_model` writes it. Scores are those of `Booster.predict`."""

    booster: xgb.Booster
    device: str = CPU

    def of_matrix(self, matrix: Float32) -> Float32:
        if self.device == CUDA:  # inplace_predict takes arrays of the GPU's own memory there, and warns of others
            return np.asarray(self.booster.predict(xgb.DMatrix(matrix, nthread=1)), np.float32)
        return np.asarray(self.booster.inplace_predict(matrix), np.float32)

    @classmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = CPU) -> "XgboostScorer":
        path = file_of(weights, "model.json", "model.ubj")
        booster = _spare_or_new()
        try:
            booster.load_model(path)
        except xgb.core.XGBoostError as error:
            raise CorruptArtifact(f"{path}: {str(error).splitlines()[0]}", "Save the model again.") from None
        booster.set_param({"nthread": 1, "device": device})
        refuse_width(booster.num_features(), spec, path)
        booster.feature_names = None  # columns go by their place
        scorer = cls(spec=spec, booster=booster, device=device)
        weakref.finalize(scorer, _keep, booster).atexit = False
        return scorer


def _spare_or_new() -> xgb.Booster:
    try:
        return SPARE.popleft()
    except IndexError:
        return xgb.Booster({"nthread": 1})


def _keep(booster: xgb.Booster) -> None:
    """Once nobody scores by it."""
    if len(SPARE) < MOST_SPARE:
        SPARE.append(booster)
