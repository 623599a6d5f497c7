"""What an index backend gives for its bytes: recall@100 and queries a second on a release's own embeddings."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from index.effort import RECALL_K
from index.recall import recall_at, sampled_rows
from index.sharded import IndexSpec, ShardedIndex, build_shard, finish
from infra.cost import timed
from infra.settings import BackendName, Settings

SINGLE, BATCH = 200, 1000
"""Queries asked one by one, and in one batch."""

Float32 = npt.NDArray[np.float32]


def figures_of(folder: Path, vectors: Float32, settings: Settings) -> dict[str, Any]:
    """What a finished index finds, how fast one thread searches it, and its size.

    {"structures", "recall_at_100", "queries_per_s", "queries_per_s_batched", "bytes"}. Speeds are the better of two
    passes; queries are rows of vectors float32 [N, D], those that are indexed.
    """
    index = ShardedIndex.open(folder)
    rows = sampled_rows(len(vectors), settings.index.recall_queries, settings.run.seed)
    return {
        "structures": sorted(set(index.structures)),
        "recall_at_100": recall_at(index, vectors, rows, RECALL_K),
        "queries_per_s": _speed(index, vectors, rows[:SINGLE], 1),
        "queries_per_s_batched": _speed(index, vectors, rows[:BATCH], BATCH),
        "bytes": size_bytes(folder),
    }


def size_bytes(folder: Path) -> int:
    """Of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _speed(index: ShardedIndex, vectors: Float32, rows: npt.NDArray[np.int64], batch: int) -> float | None:
    if not len(rows):
        return None
    parts = [np.ascontiguousarray(vectors[rows[at : at + batch]]) for at in range(0, len(rows), batch)]
    k = min(RECALL_K, len(vectors))

    def ask() -> None:
        for queries in parts:
            index.search(queries, k)

    return len(rows) / min(timed(ask)[1] for _ in range(2))


def compared(
    vectors: Float32, settings: Settings, names: Sequence[BackendName], scratch: Path
) -> Iterator[dict[str, Any]]:
    """`figures_of` an index of each backend, built here, with "backend" and "build_s" (one thread).

    By the settings, but never searched exactly for being small: the backend is what is measured.
    """
    for name in names:
        options = settings.index.model_copy(update={"backend": name, "exact_below": 0})
        spec = IndexSpec.from_settings(options, settings.run.seed)
        with TemporaryDirectory(prefix=f"{name}-", dir=scratch) as folder:
            _, build_s = timed(partial(_build, vectors, spec, Path(folder)))
            yield {"backend": name, "build_s": round(build_s, 3)} | figures_of(Path(folder), vectors, settings)


def _build(vectors: Float32, spec: IndexSpec, folder: Path) -> None:
    for shard in range(spec.shards):
        build_shard(vectors, spec, shard, folder)
    finish(folder, spec)
