"""The night's own ranker as a model: a prior, what its kind adds, and the model of users without friends."""

from dataclasses import dataclass
from pathlib import Path

from infra.errors import CorruptArtifact
from infra.model_spec import ModelSpec
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import HEAD
from lookup_api.ranking.scorers import CPU, Float32, Scorer, file_of
from lookup_api.ranking.scoring import RankingModel


@dataclass(frozen=True, kw_only=True)
class RankerScorer(Scorer):
    """weights: the files of a ranker artifact. It scores on the CPU whatever the device, as workers do."""

    model: RankingModel

    def of_matrix(self, matrix: Float32) -> Float32:
        return self.model.score(matrix)

    @classmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = CPU) -> "RankerScorer":
        head = file_of(weights, HEAD)
        if spec.columns != FEATURES:
            raise CorruptArtifact(f"{head}: takes the {len(FEATURES)} features of the night, in order, not others")
        try:
            return cls(spec=spec, model=RankingModel.open(weights))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise CorruptArtifact(f"{weights}: no ranker of the night: {error}", "Push it again.") from error
