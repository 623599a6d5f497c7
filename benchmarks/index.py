"""Build time, queries a second, recall@100 and bytes of every index backend beside a peer, on clustered unit vectors.

    python -m benchmarks.index [--rows 100000] [--dimensions 128] [--spread 0.9] [--vectors FILE.npy]
                               [--backends exact,hnsw,ivf_pq,scann] [--set key=value …] [--threads 2] [--seed 17]

One shard, so that the figures are the library's; k = 100; queries are rows of the index. The peer is hnswlib where it
is installed (M 16, ef 200/400), else FAISS IndexFlatIP as it comes. --spread is the noise around a centre: 0.9 gives
loose clusters, 0.25 dense ones, where neighbours differ in the third decimal.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from index.backend import MODULES, Backend, backend_named, open_backend
from index.recall import recall_at, sampled_rows
from infra.settings import IndexSettings

PACKAGES = ("faiss-cpu", "scann", "hnswlib", "numpy", "numba")
K = 100
SINGLE, BATCHED, BATCH = 500, 8192, 2048
"""Queries asked one by one, queries asked in batches, and the size of a batch."""
COLUMNS = ("backend", "structure", "build s", "QPS single", "QPS batched", "QPS batched, threads", "recall", "MB")


def main() -> None:
    args = parse_arguments()
    vectors = np.load(args.vectors) if args.vectors else clustered(args.rows, args.dimensions, args.spread, args.seed)
    settings = IndexSettings.model_validate(dict(pair.split("=", 1) for pair in args.set))
    print_machine(args, vectors)
    print(" | ".join(COLUMNS))
    print(" | ".join("---" for _ in COLUMNS))
    print_line("peer: " + peer_name(), "", *measure_peer(vectors, args))
    for name in args.backends.split(","):
        with tempfile.TemporaryDirectory() as folder:
            print_line(name, *measure_backend(name, vectors, settings, Path(folder), args))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--spread", type=float, default=0.9)
    parser.add_argument("--vectors", help="measure these float32 [n, d] instead")
    parser.add_argument("--backends", default=",".join(MODULES))
    parser.add_argument("--set", action="append", default=[], help="a setting of section index, such as rerank=200")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def clustered(rows: int, dimensions: int, spread: float, seed: int, centres: int = 2000) -> Any:
    """Unit vectors in clusters of clusters, of uneven width, float32 [rows, dimensions]."""
    draw = np.random.default_rng(seed)
    regions = draw.standard_normal((40, dimensions))
    middle = regions[draw.integers(0, 40, centres)] + draw.standard_normal((centres, dimensions))
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    width = spread * draw.gamma(2, 0.5, (rows, 1)) / np.sqrt(dimensions)
    vectors = middle[draw.integers(0, centres, rows)] + width * draw.standard_normal((rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def measure_backend(
    name: str, vectors: Any, settings: IndexSettings, folder: Path, args: argparse.Namespace
) -> tuple[Any, ...]:
    kind: type[Backend] = backend_named(name)
    built, build_s = timed(lambda: kind.build(vectors, kind.parameters_from(settings), args.seed))
    built.save(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    index = open_backend(folder)
    search = lambda queries, threads: index.search(queries, K, threads)  # noqa: E731
    recall = recall_at(index, vectors, sampled_rows(len(vectors), 1000, args.seed), K)
    return index.structure, build_s, *speeds(search, vectors, args), recall, size


def speeds(search: Callable[[Any, int], Any], vectors: Any, args: argparse.Namespace) -> tuple[float, float, float]:
    """Queries a second: one by one, batched, and batched with threads; the best of two passes each."""
    rows = np.random.default_rng(args.seed).integers(0, len(vectors), BATCHED)
    queries = vectors[rows]

    def batches(threads: int) -> None:
        for start in range(0, BATCHED, BATCH):
            search(queries[start : start + BATCH], threads)

    def singly() -> None:
        for i in range(SINGLE):
            search(queries[i : i + 1], 1)

    search(queries[:BATCH], 1)
    single = min(timed(singly)[1] for _ in range(2))
    batched = min(timed(lambda: batches(1))[1] for _ in range(2))
    threaded = min(timed(lambda: batches(args.threads))[1] for _ in range(2))
    return SINGLE / single, BATCHED / batched, BATCHED / threaded


def peer_name() -> str:
    return "hnswlib" if installed("hnswlib") else "FAISS IndexFlatIP"


def measure_peer(vectors: Any, args: argparse.Namespace) -> tuple[Any, ...]:
    (search, size), build_s = timed(lambda: hnswlib_peer(vectors) if installed("hnswlib") else flat_peer(vectors))
    found = recall_at(Found(search), vectors, sampled_rows(len(vectors), 1000, args.seed), K)
    return build_s, *speeds(search, vectors, args), found, size


class Found:
    """A search function in the shape that `recall_at` takes."""

    def __init__(self, search: Callable[[Any, int], Any]) -> None:
        self._search = search

    def search(self, queries: Any, k: int) -> Any:
        return self._search(queries, 1)


def flat_peer(vectors: Any) -> tuple[Callable[[Any, int], Any], int]:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(queries: Any, threads: int) -> Any:
        faiss.omp_set_num_threads(threads)
        scores, rows = index.search(queries, K)
        return rows, scores

    return search, vectors.nbytes


def hnswlib_peer(vectors: Any) -> tuple[Callable[[Any, int], Any], int]:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    index.add_items(vectors, num_threads=1)
    index.set_ef(400)
    return lambda queries, threads: index.knn_query(queries, K, num_threads=threads), index.index_file_size()


def print_machine(args: argparse.Namespace, vectors: Any) -> None:
    memory = psutil.virtual_memory().total / 2**30
    source = args.vectors or f"clustered, spread {args.spread}"
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES if installed(p)))
    print(f"{datetime.now(UTC):%Y-%m-%d}, seed {args.seed}, {args.threads} threads where it says so")
    print(f"{source}: {vectors.shape[0]} x {vectors.shape[1]}, k {K}, settings {args.set or 'default'}\n", flush=True)


def print_line(name: str, structure: str, build_s: float, *figures: float) -> None:
    single, batched, threaded, recall, size = figures
    speed = " | ".join(f"{qps:,.0f}" for qps in (single, batched, threaded))
    print(f"{name} | {structure} | {build_s:.1f} | {speed} | {recall:.4f} | {size / 1e6:.0f}", flush=True)


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
