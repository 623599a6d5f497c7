"""Folders of small models, as somebody would push them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infra.model_golden import Golden, write_golden
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec

INPUTS = ("common_neighbours", "walk", "viewer_degree")
"""Columns of the ranker's input that small models use."""
ROWS = 40


def small_spec(**changes: Any) -> ModelSpec:
    """A model of three inputs."""
    values: dict[str, Any] = {
        "name": "small",
        "version": "1",
        "kind": "xgboost",
        "objective": "befriend",
        "inputs": tuple(InputSpec(name=name, default=0.5) for name in INPUTS),
    }
    return ModelSpec(**values | changes)


def columns_of(spec: ModelSpec, rows: int = ROWS, seed: int = 3) -> dict[str, Any]:
    """Random inputs, by name."""
    rng = np.random.default_rng(seed)
    return {
        one.name: rng.normal(size=(rows, one.width) if one.width > 1 else rows).astype(one.dtype) for one in spec.inputs
    }


def write_folder(folder: Path, spec: ModelSpec, weights: Callable[[Path], None], golden: Golden | None = None) -> Path:
    """A model's folder. weights: writes its files. golden: of scores of zero, if not given."""
    (folder / WEIGHTS).mkdir(parents=True)
    weights(folder / WEIGHTS)
    (folder / "model.toml").write_text(spec.to_toml())
    (folder / "card.md").write_text("# Small\n\nFor tests.\n")
    write_golden(folder, spec, golden or Golden(columns_of(spec), np.zeros(ROWS, np.float32)))
    return folder


def any_folder(folder: Path, text: str = "weights", **changes: Any) -> Path:
    """A folder that the registry takes, whose weights nothing reads."""
    return write_folder(folder, small_spec(**changes), lambda path: (path / "w.txt").write_text(text) and None)
