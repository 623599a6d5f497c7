"""What a ranker artifact says of pairs: one model for users with friends, another for those without."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lookup_api.ranking.newcomers import Newcomers
from lookup_api.ranking.ranker import Float32, Ranker


class RanksPairs(Protocol):
    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows of the ranker's input float32 [n, F]; higher is better, within one viewer."""
        ...


@dataclass(frozen=True)
class RankingModel:
    """Nightly and live scores are both this model's. newcomers: None where the ranker ranks for all."""

    ranker: Ranker
    newcomers: Newcomers | None = None

    @classmethod
    def open(cls, folder: Path) -> "RankingModel":
        """Reads the data folder of a ranker artifact. Raises CorruptArtifact, as its parts do."""
        return cls(Ranker.open(folder), Newcomers.open(folder))

    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows of the ranker's input float32 [n, F]; higher is better, within one viewer."""
        scores = self.ranker.score(matrix)
        return scores if self.newcomers is None else self.newcomers.amend(scores, matrix)
