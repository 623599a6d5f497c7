"""Models of lists, as somebody would author and export them."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gnn.blend.list_export import export_list
from gnn.blend.list_model import ListModel
from gnn.blend.spaced_spectrum import SpacedSpectrum
from infra.model_spec import InputSpec, ModelSpec

PICKS = 6
"""Few, as every pick makes the graph larger."""


def list_spec(dimensions: int, version: str = "1", **changes: Any) -> ModelSpec:
    """Of scores, prices, embeddings and three groups a person."""
    inputs = (
        InputSpec(name="score"),
        InputSpec(name="price"),
        InputSpec(name="embedding", width=dimensions),
        InputSpec(name="attributes", type="int64", width=3, default=-1),
    )
    values: dict[str, Any] = {
        "kind": "onnx",
        "objective": "befriend",
        "unit": "list",
        "output": "worth",
        "inputs": inputs,
    }
    return ModelSpec(**{"name": "blend", "version": version} | values | changes)


def list_columns(dimensions: int, people: int, seed: int = 3) -> dict[str, np.ndarray]:
    """A list with duplicates, a zero vector and equal scores."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(people, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = draw.normal(0, 3, people).astype(np.float32)
    if people > 5:
        vectors[5], vectors[4] = vectors[0], 0
        scores[3] = scores[2]
    prices = draw.random(people).astype(np.float32)
    groups = draw.integers(-1, 12, (people, 3))
    return {"score": scores, "price": prices, "embedding": vectors, "attributes": groups}


def small_blend(gamma: float = 0.5, spacing: float = 0.1, price: float = -0.5, picks: int = PICKS) -> ListModel:
    return ListModel({"score": 1.0, "price": price}, SpacedSpectrum(gamma, spacing, 4), picks)


def write_list_model(folder: Path, dimensions: int, model: nn.Module | None = None, version: str = "1") -> Path:
    """A folder of the registry."""
    spec = list_spec(dimensions, version)
    export_list(model or small_blend(), spec, list_columns(dimensions, 40), "# A blend\n\nFor tests.\n", folder)
    return folder
