"""FAISS HNSW: a navigable small-world graph over the full vectors (Malkov and Yashunin, arXiv 1603.09320)."""

from typing import Any, Self

import faiss

from index import backend
from index.backend import Float32, Int32, Parameters
from index.effort import widen_search
from index.faiss_base import FaissBackend, one_openmp_thread
from infra.settings import IndexSettings


class FaissHnsw(FaissBackend):
    """One thread inserts, in row order: with more, the links would depend on who came first."""

    name = "hnsw"
    magic = {"hnsw": b"IHNf"}  # noqa: RUF012

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        return {
            "links": settings.hnsw_links,
            "ef_construction": settings.hnsw_ef_construction,
            "ef_search": settings.hnsw_ef_search,
            "target_recall": settings.target_recall,
        }

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        vectors = backend.finite_matrix(vectors, "vectors")
        index = faiss.IndexHNSWFlat(vectors.shape[1], int(parameters["links"]), faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = int(parameters["ef_construction"])
        index.hnsw.rng = faiss.RandomGenerator(seed)
        with one_openmp_thread():
            index.add(vectors)
        built = cls(index, "hnsw", parameters)
        widen_search(built, vectors, {"ef_search": len(vectors)}, float(parameters["target_recall"]), seed)
        return built

    def _flat(self) -> Any:
        return faiss.downcast_index(self._index.storage)

    def _candidates(self, queries: Float32, k: int) -> Int32:
        beam = max(k, int(self.parameters["ef_search"]))
        return self._index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=beam))[1]
