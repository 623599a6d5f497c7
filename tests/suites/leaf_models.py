"""Models that leaves open in tests, pushed without the checks that `pymk model push` makes."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xgboost as xgb
from prometheus_client import CollectorRegistry

from infra.model_routes import ModelRef
from infra.models import Registry
from infra.serving_settings import LeafSettings
from infra.store import ObjectStore
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from tests.suites.model_folders import small_spec, write_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUARTER = 256 << 10
"""Bytes of which a leaf of 1 MiB has room for four models."""


def trees(seed: int, width: int = 3) -> Callable[[Path], None]:
    """Weights of a small booster of its own for every seed."""

    def write(folder: Path) -> None:
        x = np.random.default_rng(seed).normal(size=(200, width)).astype(np.float32)
        y = x[:, seed % width] * (seed + 1)
        xgb.train({"max_depth": 3, "nthread": 1}, xgb.DMatrix(x, y), 5).save_model(folder / "model.json")

    return write


def push(store: ObjectStore, version: str, weights: Callable[[Path], None] | None = None, **changes: Any) -> ModelRef:
    """small@version, boosted trees if not said otherwise."""
    spec = small_spec(**{"version": version, "resources": {"memory_bytes": QUARTER}} | changes)
    with TemporaryDirectory() as scratch:
        made = write_folder(Path(scratch) / "model", spec, weights or trees(int(version)))
        Registry(store).push(made, lambda folder, spec: {}, NOW, "a")
    return ModelRef(name=spec.name, version=version)


def breaker(name: str) -> Breaker:
    return Breaker(name, 2, 60)


def leaf_of(store: ObjectStore, **settings: Any) -> LocalLeaf:
    """A leaf with room for four models of a quarter."""
    values = LeafSettings(**{"memory_mib": 1, "timeout_ms": 60_000} | settings)
    return LocalLeaf(store.uri, values, HostMetrics(CollectorRegistry()), breaker)


def soon() -> Deadline:
    """Far enough for anything that does not hang."""
    return Deadline.after(60)
