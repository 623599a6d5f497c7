"""A model of the registry as one that ranks: given the ranker's input, it takes the columns that it names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.errors import UsageError
from infra.model_spec import ModelSpec
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.model_check import refuse_unknown
from lookup_api.ranking.scorers import Float32, Scorer, open_scorer


@dataclass(frozen=True)
class OfFeatures:
    """places int64 [C]: of the model's inputs among FEATURES; None for all of them in order."""

    scorer: Scorer
    places: npt.NDArray[np.int64] | None

    @classmethod
    def of(cls, scorer: Scorer) -> "OfFeatures":
        """Raises UsageError for a model of lists, and for one with inputs that rankers do not have."""
        spec = scorer.spec
        if spec.unit != "row" or spec.width != len(spec.inputs):
            raise UsageError(f"{spec.name}: scores lists, or takes columns that are wide: it is no ranker")
        refuse_unknown(spec, FEATURES)
        if spec.columns == FEATURES:
            return cls(scorer, None)
        return cls(scorer, np.array([FEATURES.index(name) for name in spec.columns]))

    @classmethod
    def open(cls, folder: Path, spec: ModelSpec | None = None) -> "OfFeatures":
        """Raises what `of` and `open_scorer` raise."""
        return cls.of(open_scorer(folder, spec))

    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows of the ranker's input float32 [n, F]; higher is better, within one viewer."""
        inputs = self.scorer.spec.inputs
        own = matrix if self.places is None else matrix[:, self.places]
        if all(one.type == "float32" for one in inputs):
            return self.scorer.score(own)
        return self.scorer.score({one.name: own[:, at].astype(one.dtype) for at, one in enumerate(inputs)})
