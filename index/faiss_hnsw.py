"""FAISS HNSW: a navigable small-world graph over the vectors (Malkov and Yashunin, arXiv 1603.09320)."""

from typing import Any, Self

import faiss

from index import backend
from index.backend import Float32, Int32, Parameters
from index.effort import widen_search
from index.faiss_base import FaissBackend, keeps_int8, one_openmp_thread, reachable, store_bits
from infra.settings import IndexSettings

WHOLE, INT8 = "hnsw", "hnsw_int8"


class FaissHnsw(FaissBackend):
    """One thread inserts, in row order: with more, the links would depend on who came first."""

    name = "hnsw"
    magic = {WHOLE: b"IHNf", INT8: b"IHNs"}  # noqa: RUF012

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        return {
            "links": settings.hnsw_links,
            "ef_construction": settings.hnsw_ef_construction,
            "ef_search": settings.hnsw_ef_search,
            "target_recall": settings.target_recall,
            "store_bits": store_bits(settings),
        }

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        vectors = backend.finite_matrix(vectors, "vectors")
        int8 = keeps_int8(vectors, parameters)
        index = _empty_graph(vectors.shape[1], int(parameters["links"]), int8)
        index.hnsw.efConstruction = int(parameters["ef_construction"])
        index.hnsw.rng = faiss.RandomGenerator(seed)
        with one_openmp_thread():
            if int8:
                index.train(vectors)
            index.add(vectors)
        built = cls(index, INT8 if int8 else WHOLE, parameters)
        target = reachable(float(parameters["target_recall"]), built._store(), vectors, seed)
        widen_search(built, vectors, {"ef_search": len(vectors)}, target, seed)
        return built

    def _store(self) -> Any:
        return faiss.downcast_index(self._index.storage)

    def _candidates(self, queries: Float32, k: int) -> Int32:
        beam = max(k, int(self.parameters["ef_search"]))
        return self._index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=beam))[1]


def _empty_graph(dimensions: int, links: int, int8: bool) -> Any:
    if int8:
        return faiss.IndexHNSWSQ(dimensions, faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexHNSWFlat(dimensions, links, faiss.METRIC_INNER_PRODUCT)
