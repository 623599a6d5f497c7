"""Models for benchmarks of leaves: boosted trees on some of 200 columns, a few of them pushed under many names."""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xgboost as xgb
from prometheus_client import CollectorRegistry

from infra.errors import NotFound
from infra.model_golden import Golden, write_golden
from infra.model_routes import ModelRef
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec, Resources
from infra.models import Registry
from infra.serving_settings import LeafSettings
from infra.store import ObjectStore
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves.leaf_metrics import HostMetrics, SenderMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.remote_leaf import RemoteLeaf

COLUMNS = 200
NAMES = tuple(f"c{at}" for at in range(COLUMNS))
DEPTH, LEARN_ROWS = 6, 5000
LEARNT = 4
"""Sets of trees; the versions of a registry share them."""
MODEL_BYTES = 4 << 20
"""What each model says it takes."""
SEED = 17
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Learnt:
    """weights: as XGBoost writes them, binary. rows float32 [10, used], scores float32 [10]: the golden batch."""

    names: tuple[str, ...]
    weights: bytes
    rows: np.ndarray
    scores: np.ndarray


@cache
def learnt(number: int, used: int, trees: int) -> Learnt:
    """Boosted trees on `used` of the columns, drawn by the number."""
    draw = np.random.default_rng([SEED, number, used])
    names = tuple(NAMES[at] for at in np.sort(draw.choice(COLUMNS, used, replace=False)))
    x = draw.standard_normal((LEARN_ROWS, used), np.float32)
    rows = xgb.DMatrix(x, x[:, :5].sum(axis=1) + draw.standard_normal(LEARN_ROWS))
    booster = xgb.train({"max_depth": DEPTH, "nthread": 1, "tree_method": "hist"}, rows, trees)
    return Learnt(names, bytes(booster.save_raw("ubj")), x[:10], booster.predict(rows)[:10])


def push(store: ObjectStore, version: str, used: int, trees: int, kind: str = "xgboost", number: int = 0) -> ModelRef:
    """bench@version, without the checks of `pymk model push`; one that is there stands."""
    ref = ModelRef(name="bench", version=version)
    with suppress(NotFound):
        Registry(store).get(ref.name, ref.version)
        return ref
    made = learnt(number % LEARNT, used, trees)
    inputs = tuple(InputSpec(name=one) for one in made.names)
    spec = ModelSpec(
        name="bench", version=version, kind=kind, objective="befriend", inputs=inputs,
        resources=Resources(memory_bytes=MODEL_BYTES),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        (folder / WEIGHTS).mkdir(parents=True)
        (folder / WEIGHTS / "model.ubj").write_bytes(made.weights)
        (folder / "model.toml").write_text(spec.to_toml())
        (folder / "card.md").write_text("# Bench\n")
        write_golden(folder, spec, Golden(dict(zip(made.names, made.rows.T, strict=True)), made.scores))
        Registry(store).push(folder, lambda folder, spec: {}, NOW, "bench")
    return ref


def columns_of(rows: int, features: Path | None = None) -> dict[str, np.ndarray]:
    """200 columns, float32 [rows] each; of a features artifact every column again from other rows."""
    if features is None:
        values = np.random.default_rng(SEED).standard_normal((COLUMNS, rows), np.float32)
        return dict(zip(NAMES, values, strict=True))
    table = pq.read_table(features)
    real = [table[name].to_numpy().astype(np.float32) for name in table.schema.names[2:]]
    starts = np.random.default_rng(SEED).integers(0, len(real[0]) - rows, COLUMNS)
    return {name: real[at % len(real)][starts[at] :][:rows].copy() for at, name in enumerate(NAMES)}


def local(store: ObjectStore) -> LocalLeaf:
    return LocalLeaf(store.uri, LeafSettings(), HostMetrics(CollectorRegistry()), breaker)


def remote(kind: type[RemoteLeaf], address: str, lz4: bool = False) -> RemoteLeaf:
    settings = LeafSettings(lz4=lz4, timeout_ms=60_000)
    return kind(address, settings, SenderMetrics(CollectorRegistry()), breaker(address))


def breaker(name: str) -> Breaker:
    return Breaker(name, 5, 1.0)


def soon() -> Deadline:
    return Deadline.after(60)
