"""What every ranker is: a linear prior and what its kind adds, with one protocol and one folder layout."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact
from lookup_api.ranking.features import FEATURES

RANKER_VERSION = 2
READS = (1, RANKER_VERSION)
"""Versions that can be opened; version 1 names no kind and is of trees."""
HEAD = "model.json"
KINDS = {
    "trees": ("lookup_api.ranking.ranker_trees", "TreesRanker"),
    "mlp": ("lookup_api.ranking.ranker_mlp", "MlpRanker"),
    "ensemble": ("lookup_api.ranking.ranker_ensemble", "EnsembleRanker"),
}
"""Kind -> module and class. A kind's libraries are loaded when a ranker of it is."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ranker(ABC):
    """score = prior . features + what the kind adds. prior float64 [F]: weights of the linear part."""

    kind: ClassVar[str]
    prior: Float64

    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows float32 [n, F]; higher is better, comparable within one viewer.

        One thread; a row's score is the same to the bit whatever rows come with it.
        """
        if not len(matrix):
            return np.empty(0, np.float32)
        return self.above(matrix, linear(matrix, self.prior))

    @abstractmethod
    def above(self, matrix: Float32, margin: Float32) -> Float32:
        """Scores float32 [n] of at least one row, given those of the prior, float32 [n]."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Writes what the kind adds to the prior."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """What model.json says of the kind: its library's version, its size."""

    @abstractmethod
    def content_hash(self) -> str:
        """Hash of everything that scores depend on."""

    def gains(self) -> dict[str, float] | None:
        """What each feature adds, in any unit, where the model itself knows."""
        return None

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, prior: Float64, head: dict[str, Any]) -> "Ranker":
        """The ranker that `write` and `head` describe. Raises CorruptArtifact where the files do not fit."""

    def save(self, folder: Path) -> None:
        """Writes model.json and the kind's own file."""
        self.write(folder)
        (folder / HEAD).write_text(json.dumps(self.head(), indent=1, sort_keys=True))

    def head(self) -> dict[str, Any]:
        """The content of model.json."""
        weights = {name: float(w) for name, w in zip(FEATURES, self.prior, strict=True) if w}
        common = {"version": RANKER_VERSION, "kind": self.kind, "features": list(FEATURES), "prior": weights}
        return common | self.details()

    @staticmethod
    def open(folder: Path) -> "Ranker":
        """Reads a saved ranker of any kind. Raises CorruptArtifact where this code makes other columns than it learnt
        on, or does not know its version or kind."""
        head = json.loads((folder / HEAD).read_text())
        kind = head.get("kind", "trees")
        if head["version"] not in READS or kind not in KINDS:
            raise CorruptArtifact(
                f"{folder}: ranker version {head['version']} of kind {kind}, "
                f"this code reads versions {READS} of {', '.join(KINDS)}"
            )
        if tuple(head["features"]) != FEATURES:
            raise CorruptArtifact(
                f"{folder}: the ranker learnt on other features than the {len(FEATURES)} that this code makes",
                "Train it again with this version, or serve it with the version that made it.",
            )
        prior = np.array([head["prior"].get(name, 0.0) for name in FEATURES])
        return kind_of(kind).read(folder, prior, head)


def kind_of(name: str) -> type[Ranker]:
    """The class of a kind; its libraries are imported now."""
    module, title = KINDS[name]
    found: type[Ranker] = getattr(import_module(module), title)
    return found


def linear(matrix: Float32, weights: Float64) -> Float32:
    """matrix @ weights, summed in float64 column by column, so that it does not depend on how rows are batched."""
    total = np.zeros(len(matrix), np.float64)
    for at in np.flatnonzero(weights):
        total += matrix[:, at] * weights[at]
    return total.astype(np.float32)
