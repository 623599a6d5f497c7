"""What every model of the registry is once it is open: named columns in, a score a row out. The kinds are files beside.

A folder holds model.toml and the weights of its kind; a kind's libraries are loaded when a model of it is opened. No
kind runs code that comes with the weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact, UsageError
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec, read_spec

KINDS = {
    "ranker": ("lookup_api.ranking.scorer_ranker", "RankerScorer"),
    "xgboost": ("lookup_api.ranking.scorer_trees", "XgboostScorer"),
    "onnx": ("lookup_api.ranking.scorer_onnx", "OnnxScorer"),
}
"""Kind of a model -> module and class."""
CPU, CUDA = "cpu", "cuda"
FEWEST_ROWS = 16
"""Fewer rows than this are filled up where products of matrices are taken: those of a few rows round otherwise."""

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Scorer(ABC):
    """An open model. Scoring is safe from any thread, and takes one."""

    spec: ModelSpec

    def score(self, inputs: Mapping[str, Array] | Float32) -> Float32:
        """Scores float32 [n]; higher is better. Of a model whose unit is `row`, each row's is its own alone.

        inputs: a column by name, [n] or [n, width], where the default stands for a column that is left out; or all of
        them side by side, float32 [n, width], in the order of model.toml. Raises UsageError for inputs of other shapes.
        """
        rows = len(inputs) if isinstance(inputs, np.ndarray) else rows_of(inputs)
        if not rows:
            return np.empty(0, np.float32)
        if not isinstance(inputs, np.ndarray):
            return self.of_columns({one.name: self._column(inputs, one, rows) for one in self.spec.inputs})
        if inputs.shape != (rows, self.spec.width):
            raise UsageError(f"{self.spec.name}: inputs {list(inputs.shape)}, it takes [n, {self.spec.width}]")
        return self.of_matrix(inputs)

    @abstractmethod
    def of_matrix(self, matrix: Float32) -> Float32:
        """Scores of at least one row, float32 [n, width]."""

    def of_columns(self, columns: Mapping[str, Array]) -> Float32:
        """Scores of at least one row, of all columns, each of its type."""
        return self.of_matrix(np.column_stack([columns[name] for name in self.spec.columns]).astype(np.float32))

    @classmethod
    @abstractmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = CPU) -> "Scorer":
        """Opens the weights. Raises CorruptArtifact where they are none of the kind, or do not fit the inputs.

        device: where it scores, if its kind can: CPU or CUDA. Raises PymkError where that cannot take it.
        """

    def _column(self, inputs: Mapping[str, Array], wanted: InputSpec, rows: int) -> Array:
        if wanted.name not in inputs:
            return wanted.defaults(rows)
        column = np.asarray(inputs[wanted.name], wanted.dtype)
        if column.shape != ((rows,) if wanted.width == 1 else (rows, wanted.width)):
            raise UsageError(f"{self.spec.name}: column {wanted.name} is {list(column.shape)} of {rows} rows")
        return column


def open_scorer(folder: Path, spec: ModelSpec | None = None, device: str = CPU) -> Scorer:
    """Opens a model's folder. Raises UsageError for an unknown kind, CorruptArtifact for weights that are no use.

    spec: of its model.toml, which is read if not given. device: as `Scorer.read` takes it.
    """
    spec = spec or read_spec(folder)
    if spec.kind not in KINDS:
        raise UsageError(f"{spec.name}: kind {spec.kind!r}: no such kind of model", f"Kinds: {', '.join(KINDS)}.")
    module, title = KINDS[spec.kind]
    kind: type[Scorer] = getattr(import_module(module), title)
    return kind.read(folder / WEIGHTS, spec, device)


def rows_of(columns: Mapping[str, Array]) -> int:
    """How many rows the columns have, 0 without any."""
    return max((len(column) for column in columns.values()), default=0)


def filled_up(rows: Array) -> Array:
    """The rows, and zeros after them where they are fewer than FEWEST_ROWS."""
    missing = FEWEST_ROWS - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing > 0 else rows


def refuse_width(found: int, spec: ModelSpec, path: Path) -> None:
    """Raises CorruptArtifact for weights that take another number of columns than model.toml names."""
    if found != spec.width:
        fix = "Name the model's inputs in the order in which it learnt on them."
        raise CorruptArtifact(f"{path}: takes {found} columns, model.toml names {spec.width}", fix)


def file_of(weights: Path, *names: str) -> Path:
    """The first of the files that is there. Raises CorruptArtifact where none is."""
    for name in names:
        if (weights / name).is_file():
            return weights / name
    raise CorruptArtifact(f"{weights}: has no {' or '.join(names)}", "Save the weights under that name.")
