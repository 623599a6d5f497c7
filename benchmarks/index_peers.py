"""What benchmarks.index sets the backends beside: plain hnswlib, plain FAISS, and flat codes of few bits."""

from typing import Any

import faiss
import numpy as np

from index.effort import widen_search
from index.faiss_base import one_openmp_thread

EF_CONSTRUCTION, LINKS = 200, 16


class Hnswlib:
    """hnswlib as it comes; its beam is widened to the recall that is asked of the backends."""

    def __init__(self, vectors: Any, target: float, seed: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(vectors), M=LINKS, ef_construction=EF_CONSTRUCTION, random_seed=seed)
        self._index.add_items(vectors, num_threads=1)
        self.bytes_a_vector = self._index.index_file_size() / len(vectors)
        self.parameters: dict[str, int | float] = {"ef": 200}
        widen_search(self, vectors, {"ef": len(vectors)}, target, seed)

    def search(self, queries: Any, k: int, threads: int = 1) -> Any:
        self._index.set_ef(max(k, int(self.parameters["ef"])))
        rows, distances = self._index.knn_query(queries, k, num_threads=threads)
        return rows.astype(np.int32), 1 - distances


class Flat:
    """FAISS IndexFlatIP as it comes, with its own threads."""

    def __init__(self, vectors: Any, target: float, seed: int) -> None:
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors))
        self.bytes_a_vector = 4 * vectors.shape[1]

    def search(self, queries: Any, k: int, threads: int = 1) -> Any:
        faiss.omp_set_num_threads(threads)
        scores, rows = self._index.search(queries, k)
        return rows.astype(np.int32), scores


PEERS: dict[str, Any] = {"hnswlib": Hnswlib, "flat": Flat}


def kinds_of_codes(dimensions: int) -> dict[str, str]:
    """Label -> FAISS description. A 4-bit product code holds two dimensions; fast scan reads it from registers."""
    return {
        "float32": "Flat",
        "int8 (SQ8)": "SQ8",
        "4 bits a dimension (SQ4)": "SQ4",
        "4-bit product codes (fast scan)": f"PQ{dimensions // 2}x4fs",
    }


class Codes:
    """All rows as codes, scanned whole; with `rerank` the best so many are scored again in float32."""

    rerank = 0

    def __init__(self, vectors: Any, description: str) -> None:
        self._vectors = vectors
        self._index = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        whole = np.ascontiguousarray(vectors)
        self._index.train(whole)
        self._index.add(whole)
        self.bytes_a_vector = self._index.sa_code_size()

    def search(self, queries: Any, k: int) -> Any:
        with one_openmp_thread():
            scores, rows = self._index.search(queries, min(max(k, self.rerank), len(self._vectors)))
        if self.rerank:
            scores = np.einsum("qd,qkd->qk", queries, self._vectors[rows])
            order = np.argsort(-scores, axis=1)
            rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
        return rows[:, :k].astype(np.int32), scores[:, :k]
