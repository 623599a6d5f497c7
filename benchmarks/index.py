"""Build time, queries a second, recall@100 and bytes of every index backend beside its peers, on unit vectors.

    python -m benchmarks.index [--rows 100000] [--dimensions 128] [--spread 0.9] [--vectors FILE.npy] [--shards 1,4]
                               [--backends hnswlib,exact,hnsw,hnsw:int8,ivf_pq,ivf_pq:int8,scann] [--no-memory]
                               [--set key=value …] [--threads 2] [--seed 17]

k = 100; queries are rows of the index. `:int8` is index.store. --vectors takes the past.npy or now.npy of an embeddings
artifact. With several counts of shards the last column is the recall lost against the first. Peers: plain hnswlib where
it is installed (M 16, ef_construction 200, its ef widened as our backends widen theirs, so that speeds are compared at
one recall) and FAISS IndexFlatIP. One-thread figures are per second of CPU time: other work on the machine spoils them
less. --spread is the noise around a centre: 0.9 gives loose clusters, 0.25 dense ones, where neighbours differ in the
third decimal. A second table: how much of the 100 best survives when float32, int8 or 4-bit codes are all that is kept.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.index_peers import PEERS, Codes, kinds_of_codes
from index.recall import recall_at, sampled_rows
from index.sharded import IndexSpec, ShardedIndex, build_shard, finish
from infra.settings import IndexSettings

PACKAGES = ("faiss-cpu", "scann", "hnswlib", "numpy", "numba")
BACKENDS = "hnswlib,flat,exact,hnsw,hnsw:int8,ivf_pq,ivf_pq:int8,scann"
K = 100
RECALL_QUERIES = 1000
BATCH, SPEED_S = 2048, 1.5
"""Queries in a batch; seconds that a speed is measured for, after one call to warm up."""
COLUMNS = (
    "backend", "shards", "structure", "build CPU s", "QPS one by one", "QPS batched", "QPS batched, threads",
    "recall@100", "bytes a vector", "points lost",
)  # fmt: skip


def main() -> None:
    args = parse_arguments()
    vectors = open_vectors(args)
    print_machine(args, vectors)
    print_row(*COLUMNS)
    print_row(*["---"] * len(COLUMNS))
    for name in args.backends.split(","):
        if name == "hnswlib" and not installed("hnswlib"):
            print("hnswlib is not installed: pip install -e '.[bench]'")
        elif name in PEERS:
            print_measured(f"peer: {name}", 1, measure_peer(name, vectors, args))
        else:
            measure_shards(name, vectors, args)
    if args.memory:
        print_memory(vectors, args.seed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--spread", type=float, default=0.9)
    parser.add_argument("--vectors", help="measure these float32 [n, d] instead")
    parser.add_argument("--backends", default=BACKENDS)
    parser.add_argument("--shards", default="1,4", help="counts of shards, the first to compare the others with")
    parser.add_argument("--set", action="append", default=[], help="a setting of section index, such as rerank=200")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the second table out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def open_vectors(args: argparse.Namespace) -> Any:
    if args.vectors:
        return np.load(args.vectors, mmap_mode="r", allow_pickle=False)
    return clustered(args.rows, args.dimensions, args.spread, args.seed)


def clustered(rows: int, dimensions: int, spread: float, seed: int, centres: int = 2000) -> Any:
    """Unit vectors in clusters of clusters, of uneven width, float32 [rows, dimensions]."""
    draw = np.random.default_rng(seed)
    regions = draw.standard_normal((40, dimensions), np.float32)
    middle = regions[draw.integers(0, 40, centres)] + draw.standard_normal((centres, dimensions), np.float32)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    vectors = draw.standard_normal((rows, dimensions), np.float32)
    vectors *= (spread * draw.gamma(2, 0.5, (rows, 1)) / np.sqrt(dimensions)).astype(np.float32)
    vectors += middle[draw.integers(0, centres, rows)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


class Figures(NamedTuple):
    """What is measured of an index; build_s in CPU seconds, speeds in queries a second."""

    structure: str
    build_s: float
    single: float
    batched: float
    threaded: float
    recall: float
    bytes_a_vector: float


def measure_shards(name: str, vectors: Any, args: argparse.Namespace) -> None:
    """One line for each count of shards; the first is what the others lose against."""
    first = None
    for shards in map(int, args.shards.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            measured = measure_backend(name, shards, vectors, Path(folder), args)
        first = measured.recall if first is None else first
        print_measured(name, shards, measured, f"{100 * (first - measured.recall):.2f}")


def measure_backend(name: str, shards: int, vectors: Any, folder: Path, args: argparse.Namespace) -> Figures:
    """Built shard by shard and opened from its files, as the pipeline does."""
    spec = spec_of(name, shards, args)
    _, build_s = cpu_timed(lambda: [build_shard(vectors, spec, shard, folder) for shard in range(shards)])
    finish(folder, spec)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    opened = {threads: ShardedIndex.open(folder, threads) for threads in (1, args.threads)}
    fast = speeds(lambda queries, threads: opened[threads].search(queries, K), vectors, args)
    recall = recall_at(opened[1], vectors, sampled_rows(len(vectors), RECALL_QUERIES, args.seed), K)
    structure = "+".join(sorted(set(opened[1].structures)))
    return Figures(structure, build_s, *fast, recall, size / len(vectors))


def spec_of(name: str, shards: int, args: argparse.Namespace) -> IndexSpec:
    backend, _, store = name.partition(":")
    values = {"backend": backend, "shards": shards} | ({"store": store} if store else {})
    settings = IndexSettings.model_validate(values | dict(pair.split("=", 1) for pair in args.set))
    return IndexSpec.from_settings(settings, args.seed)


def measure_peer(name: str, vectors: Any, args: argparse.Namespace) -> Figures:
    target = float(spec_of("hnsw", 1, args).parameters["target_recall"])
    peer, build_s = cpu_timed(lambda: PEERS[name](vectors, target, args.seed))
    fast = speeds(lambda queries, threads: peer.search(queries, K, threads), vectors, args)
    recall = recall_at(peer, vectors, sampled_rows(len(vectors), RECALL_QUERIES, args.seed), K)
    return Figures("", build_s, *fast, recall, peer.bytes_a_vector)


def speeds(search: Callable[[Any, int], Any], vectors: Any, args: argparse.Namespace) -> tuple[float, float, float]:
    """Queries a second of CPU time one by one and batched with one thread, and of wall time batched with threads."""
    rows = np.random.default_rng(args.seed).integers(0, len(vectors), 8 * BATCH)
    queries = vectors[rows]
    return (
        rate(lambda part: search(part, 1), queries, 1, time.process_time),
        rate(lambda part: search(part, 1), queries, BATCH, time.process_time),
        rate(lambda part: search(part, args.threads), queries, BATCH, time.perf_counter),
    )


def rate(search: Callable[[Any], Any], queries: Any, batch: int, clock: Callable[[], float]) -> float:
    """Queries a second, in batches until SPEED_S are over."""
    parts = cycled(queries, batch)
    search(next(parts))
    start, done = clock(), 0
    while clock() - start < SPEED_S:
        done += len(search(next(parts))[0])
    return done / (clock() - start)


def cycled(queries: Any, batch: int) -> Iterator[Any]:
    while True:
        for start in range(0, len(queries), batch):
            yield queries[start : start + batch]


def print_memory(vectors: Any, seed: int) -> None:
    """Flat codes of three widths: bytes, their own recall@100, and recall once the best 400 are scored exactly."""
    queries = sampled_rows(len(vectors), RECALL_QUERIES, seed)
    print("\nkept | bytes a vector | recall@100 | after a re-rank of 400 in float32\n--- | --- | --- | ---")
    for label, description in kinds_of_codes(vectors.shape[1]).items():
        codes = Codes(vectors, description)
        alone = recall_at(codes, vectors, queries, K)
        codes.rerank = 400
        print_row(label, codes.bytes_a_vector, f"{alone:.4f}", f"{recall_at(codes, vectors, queries, K):.4f}")


def print_machine(args: argparse.Namespace, vectors: Any) -> None:
    memory = psutil.virtual_memory().total / 2**30
    source = Path(args.vectors).name if args.vectors else f"clustered, spread {args.spread}"
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, ", end="")
    print(f"load {os.getloadavg()[0]:.1f} before it began")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES if installed(p)))
    print(f"{datetime.now(UTC):%Y-%m-%d}, seed {args.seed}, {args.threads} threads where it says so")
    print(f"{source}: {vectors.shape[0]} x {vectors.shape[1]}, k {K}, settings {args.set or 'default'}\n", flush=True)


def print_measured(name: str, shards: int, of: Figures, lost: str = "") -> None:
    speed = [f"{qps:,.0f}" for qps in (of.single, of.batched, of.threaded)]
    print_row(
        name, shards, of.structure, f"{of.build_s:.1f}", *speed, f"{of.recall:.4f}", f"{of.bytes_a_vector:.0f}", lost
    )


def print_row(*cells: object) -> None:
    print(" | ".join(map(str, cells)), flush=True)


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def cpu_timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return work(), time.process_time() - start


if __name__ == "__main__":
    main()
