"""Artifacts of a small graph, made by the stages themselves without Spark or an encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import Graph
from infra.settings import CandidateSettings, RankerSettings, Settings
from jobs import build_index, candidates, features, rank, train_ranker
from jobs.context import Parent, StageContext, StageResult
from jobs.graph_parts import ATTRIBUTE_VALUES, ENTITIES

AS_OF = datetime(2024, 10, 4, tzinfo=UTC)
SETTINGS = Settings(candidates=CandidateSettings(ann=0, per_user=60, block=100), ranker=RankerSettings(trees=20))


@dataclass(frozen=True)
class GraphRelease:
    """A graph and the artifacts made of it, by kind; shared by tests, which only read it."""

    graph: Graph
    made: dict[str, Parent]


def small_release(folder: Path, graph: Graph, settings: Settings = SETTINGS) -> dict[str, Parent]:
    """kind -> artifact: graph, encoder, embeddings, index, candidates, features, ranker, rankings."""
    made: dict[str, Parent] = {}
    _put(made, folder, "graph", StageResult(graph.users, "g"), lambda data: save_graph(data, graph))
    curve = [{"step": step, "loss": 1 / (step + 1), "hits20": step / 100} for step in range(0, 50, 10)]
    _put(made, folder, "encoder", StageResult(1, "e", {"curve": curve}), lambda data: None)
    _put(made, folder, "embeddings", StageResult(graph.users, "v"), lambda data: _vectors(data, graph.users))
    _stage(made, folder, "index", settings, build_index.run)
    _stage(made, folder, "candidates", settings, lambda ctx: candidates.make(ctx, _here))
    _stage(made, folder, "features", settings, lambda ctx: features.make(ctx, _here))
    _stage(made, folder, "ranker", settings, train_ranker.run)
    _stage(made, folder, "rankings", settings, lambda ctx: rank.make(ctx, _here))
    return made


def context(made: Mapping[str, Parent], data: Path, settings: Settings = SETTINGS) -> StageContext:
    data.mkdir(parents=True, exist_ok=True)

    def no_spark() -> Any:
        raise AssertionError("this stage needs no Spark")

    return StageContext(settings, AS_OF, "", made, data, no_spark, lambda line: None)


def save_graph(folder: Path, graph: Graph) -> None:
    """The graph with its texts: value k of an attribute is `attribute-k`, entity e is `e`."""
    graph.save(folder)
    pairs = [(name, k) for name, size in zip(graph.attributes, graph.cardinalities, strict=True) for k in range(size)]
    values = {
        "attribute": [name for name, _ in pairs],
        "code": [k for _, k in pairs],
        "value": [f"{name}-{k}" for name, k in pairs],
    }
    pq.write_table(pa.table(values, schema=ATTRIBUTE_VALUES), folder / "attribute_values.parquet")
    count = len(graph.entity_kind)
    entities = {
        "entity": range(count),
        "kind": [graph.kinds[k] for k in graph.entity_kind],
        "entity_id": [str(e) for e in range(count)],
    }
    pq.write_table(pa.table(entities, schema=ENTITIES), folder / "entities.parquet")


def _put(made: dict[str, Parent], folder: Path, kind: str, result: StageResult, write: Any) -> None:
    data = folder / kind
    data.mkdir(parents=True)
    write(data)
    cost = {"wall_s": 1.5, "cpu_s": 2.0, "peak_memory_bytes": 1 << 28}
    manifest = {"rows": result.rows, "metrics": result.metrics, "cost": cost}
    made[kind] = Parent(f"{kind}-1", data, result.content_hash, manifest)


def _stage(made: dict[str, Parent], folder: Path, kind: str, settings: Settings, run: Any) -> None:
    inputs, results = dict(made), []
    _put(made, folder, kind, StageResult(0, ""), lambda data: results.append(run(context(inputs, data, settings))))
    manifest = made[kind].manifest | {"rows": results[0].rows, "metrics": results[0].metrics}
    made[kind] = Parent(made[kind].artifact_id, made[kind].path, results[0].content_hash, manifest)


def _vectors(data: Path, users: int) -> None:
    vectors = np.random.default_rng(1).normal(size=(users, 8)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    for view in ("past", "now"):
        np.save(data / f"{view}.npy", vectors)


def _here(function: Any, count: int) -> list[dict[str, Any]]:
    return [function(number) for number in range(count)]
