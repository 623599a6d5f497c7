"""Trees and a network above one prior, averaged: they err on different pairs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from infra.hashing import ContentHash
from lookup_api.ranking.ranker import Float32, Float64, Ranker
from lookup_api.ranking.ranker_mlp import MlpRanker
from lookup_api.ranking.ranker_trees import TreesRanker


@dataclass(frozen=True, kw_only=True)
class EnsembleRanker(Ranker):
    """trees, network: of the same prior. The score is the mean of theirs."""

    kind: ClassVar[str] = "ensemble"
    trees: TreesRanker
    network: MlpRanker

    def above(self, matrix: Float32, margin: Float32) -> Float32:
        return (self.trees.above(matrix, margin) + self.network.above(matrix, margin)) * np.float32(0.5)

    def write(self, folder: Path) -> None:
        self.trees.write(folder)
        self.network.write(folder)

    def details(self) -> dict[str, Any]:
        return self.trees.details() | self.network.details()

    def content_hash(self) -> str:
        return ContentHash().json("of", [one.content_hash() for one in (self.trees, self.network)]).hexdigest()

    @classmethod
    def read(cls, folder: Path, prior: Float64, head: dict[str, Any]) -> "EnsembleRanker":
        own = TreesRanker.read(folder, prior, head)
        about = {name: value for name, value in head.items() if name not in own.details()}
        return cls(prior=prior, trees=own, network=MlpRanker.read(folder, prior, about))
