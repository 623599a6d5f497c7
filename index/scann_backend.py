"""ScaNN: a partition tree and anisotropic quantisation (Guo et al., ICML 2020), with an exact re-rank."""

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scann.scann_ops.py import scann_ops_pybind as scann

from index import backend
from index.backend import Capability, Float32, Hits, Int32, Parameters, Unsupported
from index.effort import widen_search
from index.ranked import Kept, rescored
from infra.errors import CorruptArtifact
from infra.settings import IndexSettings

VECTORS = "dataset.npy"
ASSETS = "scann_assets.pbtxt"
FILES: dict[str, frozenset[str]] = {
    "empty": frozenset(),
    "flat": frozenset({ASSETS, VECTORS, "scann_config.pb"}),
    "tree_ah": frozenset(
        {
            ASSETS, VECTORS, "scann_config.pb", "ah_codebook.pb", "datapoint_to_token.npy", "hashed_dataset.npy",
            "serialized_partitioner.pb",
        }
    ),
}  # fmt: skip
"""structure -> its files, no others: ScaNN would unpickle a scann_docids.pkl that it finds."""
DIMENSIONS_PER_BLOCK = 2
ANISOTROPIC_THRESHOLD = 0.2
TRAIN_ROWS = 1000
"""Rows below which a tree is not worth its training."""
DEFAULT_NEIGHBOURS = 100


class ScannBackend:
    """sqrt(n) leaves, two dimensions a block; small shards are searched by brute force instead.

    Not repeatable: ScaNN rounds its lookup tables otherwise for a few queries than for many, which now and then
    changes which rows reach the re-rank.
    """

    name: ClassVar[str] = "scann"
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    def __init__(self, searcher: Any, vectors: Float32, structure: str, parameters: Parameters) -> None:
        self._searcher = searcher
        self._vectors = vectors
        self._kept = Kept.whole(vectors)
        self.structure = structure
        self.parameters = dict(parameters)

    @property
    def rows(self) -> int:
        return len(self._vectors)

    @property
    def dimensions(self) -> int:
        return int(self._vectors.shape[1])

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        return {
            "exact_below": settings.exact_below,
            "search_share": settings.scann_search_share,
            "rerank": settings.rerank,
            "target_recall": settings.target_recall,
        }

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        vectors = backend.finite_matrix(vectors, "vectors")
        if not len(vectors):
            return cls(None, vectors, "empty", parameters)
        tree = len(vectors) >= max(TRAIN_ROWS, int(parameters["exact_below"]))
        config = _tree_config(vectors, seed) if tree else _flat_config(vectors)
        searcher = scann.create_searcher(vectors, config, training_threads=1)
        built = cls(searcher, vectors, "tree_ah" if tree else "flat", parameters)
        if tree:
            limits = {"search_share": 1.0, "rerank": len(vectors)}
            widen_search(built, vectors, limits, float(parameters["target_recall"]), seed)
        return built

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._searcher is not None:
            self._searcher.serialize(str(folder), relative_path=True)
        backend.write_head(folder, self)

    @classmethod
    def open(cls, folder: Path) -> Self:
        head = backend.read_head(folder, cls.name)
        present = frozenset(path.name for path in folder.iterdir()) & {*head.files, "scann_docids.pkl"}
        if present != FILES.get(head.structure):
            raise CorruptArtifact(f"{folder}: {sorted(present)} are not the files of a ScaNN {head.structure} index")
        if head.structure == "empty":
            return cls(None, np.empty((0, head.dimensions), np.float32), head.structure, head.parameters)
        try:
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            searcher = scann.load_searcher(str(folder), assets_backcompat_shim=False)
        except (RuntimeError, ValueError) as error:
            raise CorruptArtifact(f"{folder}: ScaNN cannot read it: {error}", "Build the index again.") from None
        if vectors.shape != (head.rows, head.dimensions) or searcher.size() != head.rows:
            raise CorruptArtifact(f"{folder}: {vectors.shape}, its head says {head.rows} x {head.dimensions}")
        return cls(searcher, vectors, head.structure, head.parameters)

    def search(self, queries: Float32, k: int, threads: int = 1) -> Hits:
        backend.check_k(k)
        queries = backend.matrix(queries, self.dimensions, "queries")
        if not (self.rows and len(queries)):
            return rescored(self._kept, queries, np.empty((len(queries), 0), np.int32), k)
        asked = min(k, self.rows)
        rows = self._candidates(queries, asked, threads, self._effort(asked))
        short = (rows < 0).any(axis=1)
        if short.any():
            rows[short] = self._candidates(queries[short], asked, threads, (self.rows, _leaves(self.rows)))
        return rescored(self._kept, queries, rows, k)

    def _candidates(self, queries: Float32, k: int, threads: int, effort: tuple[int, ...]) -> Int32:
        """Local rows int32 [Q, k]; ScaNN marks what it did not find by a score that is no number."""
        search = self._searcher.search_batched
        if threads > 1:
            self._searcher.set_num_threads(threads)
            search = self._searcher.search_batched_parallel
        found, scores = search(queries, k, *effort)
        return np.where(np.isnan(scores), -1, found.astype(np.int64)).astype(np.int32)

    def add(self, vectors: Float32) -> None:
        raise Unsupported(f"index.backend {self.name} cannot add rows to a built index", "Build the shard again.")

    def _effort(self, k: int) -> tuple[int, ...]:
        """Rows to re-rank and leaves to search; enough leaves to hold twice what is re-ranked."""
        if self.structure != "tree_ah":
            return ()
        rerank = min(max(k, int(self.parameters["rerank"])), self.rows)
        leaves = _leaves(self.rows)
        enough = math.ceil(2 * rerank * leaves / self.rows)
        return rerank, min(leaves, max(enough, math.ceil(float(self.parameters["search_share"]) * leaves)))


def _leaves(rows: int) -> int:
    return max(1, math.isqrt(rows))


def _flat_config(vectors: Float32) -> str:
    builder = scann.builder(vectors, min(DEFAULT_NEIGHBOURS, len(vectors)), "dot_product")
    return str(builder.score_brute_force().create_config())


def _tree_config(vectors: Float32, seed: int) -> str:
    """ScaNN's text config. Its builder has no seed and starts k-means at random points; k-means++ heeds the seed."""
    leaves = _leaves(len(vectors))
    builder = scann.builder(vectors, DEFAULT_NEIGHBOURS, "dot_product")
    builder = builder.tree(leaves, max(1, leaves // 10), training_sample_size=len(vectors))
    builder = builder.score_ah(DIMENSIONS_PER_BLOCK, anisotropic_quantization_threshold=ANISOTROPIC_THRESHOLD)
    seed = 1 + seed % (2**31 - 1)
    return str(
        builder.reorder(DEFAULT_NEIGHBOURS)
        .create_config()
        .replace("partitioning {", f"partitioning {{ clustering_seed: {seed}")
        .replace("asymmetric_hash {", f"asymmetric_hash {{ clustering_seed: {seed} sampling_seed: {seed}")
        .replace("RANDOM_INITIALIZATION", "DEFAULT_KMEANS_PLUS_PLUS")
    )
