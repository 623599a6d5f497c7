"""FAISS IVF with 4-bit product quantisation, scanned in registers, and an exact re-rank.

Lists are chosen by inner product with their centroids, codes hold residuals (Jegou et al., TPAMI 2011; fast scan: Andre
et al., VLDB 2015), and the best codes are scored again with the vectors themselves, or with a byte a dimension of them.
"""

import math
from typing import Any, Self

import faiss

from index import backend
from index.backend import Float32, Int32, Parameters
from index.effort import widen_search
from index.faiss_base import FLAT, FaissBackend, flat_index, keeps_int8, one_openmp_thread, reachable, store_bits
from infra.settings import IndexSettings

REFINED, REFINED_INT8 = "ivf_pq", "ivf_pq_int8"
CODES = 16
"""Values of a 4-bit code."""
TRAIN_ROWS = 39 * CODES
"""Rows below which the quantiser cannot be trained (FAISS asks for 39 points a centroid)."""
RESERVOIR = 13
"""FAISS's search that treats each query alone; its automatic choice depends on the number of queries and threads."""
MAX_FACTOR = 1000.0
"""The most that FAISS lets a re-rank widen k."""


class FaissIvfPq(FaissBackend):
    """IVF sqrt(n), PQ of 2 dimensions a code, a re-rank; small shards are kept whole and searched exactly instead."""

    name = "ivf_pq"
    magic = {FLAT: b"IxFI", REFINED: b"IxRF", REFINED_INT8: b"IxRF"}  # noqa: RUF012

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        return {
            "exact_below": settings.exact_below,
            "probe_share": settings.ivf_probe_share,
            "rerank": settings.rerank,
            "target_recall": settings.target_recall,
            "store_bits": store_bits(settings),
        }

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        vectors = backend.finite_matrix(vectors, "vectors")
        with one_openmp_thread():
            if len(vectors) < max(TRAIN_ROWS, int(parameters["exact_below"])):
                return cls(flat_index(vectors), FLAT, parameters)
            int8 = keeps_int8(vectors, parameters)
            built = cls(_refined_index(vectors, int8, seed), REFINED_INT8 if int8 else REFINED, parameters)
        limits = {"probe_share": 1.0, "rerank": len(vectors)}
        target = reachable(float(parameters["target_recall"]), built._store(), vectors, seed)
        widen_search(built, vectors, limits, target, seed)
        return built

    def _store(self) -> Any:
        return self._index if self.structure == FLAT else faiss.downcast_index(self._index.refine_index)

    def _attach(self) -> None:
        super()._attach()
        if self.structure != FLAT:
            faiss.downcast_index(self._index.base_index).implem = RESERVOIR

    def _candidates(self, queries: Float32, k: int) -> Int32:
        if self.structure == FLAT:
            return super()._candidates(queries, k)
        rerank = min(max(k, int(self.parameters["rerank"])), self.rows)
        lists = int(faiss.downcast_index(self._index.base_index).nlist)
        found = self._probe(queries, k, rerank, self._probes(rerank, lists))
        short = (found < 0).any(axis=1)
        if short.any():
            found[short] = self._probe(queries[short], k, rerank, lists)
        return found

    def _probe(self, queries: Float32, k: int, rerank: int, lists: int) -> Int32:
        search = faiss.IndexRefineSearchParameters(
            k_factor=min(rerank / k, MAX_FACTOR), base_index_params=faiss.IVFSearchParameters(nprobe=lists)
        )
        return self._index.search(queries, k, params=search)[1]

    def _probes(self, rerank: int, lists: int) -> int:
        """Lists to look into: the share asked for, and enough to hold twice what is re-ranked.

        Where many rows are equal, all lists looked into can still be empty; those queries look into every list.
        """
        enough = math.ceil(2 * rerank * lists / self.rows)
        return min(lists, max(enough, math.ceil(float(self.parameters["probe_share"]) * lists)))


def _refined_index(vectors: Float32, int8: bool, seed: int) -> Any:
    rows, dimensions = vectors.shape
    codes = dimensions // 2 if dimensions % 2 == 0 else dimensions
    description = f"IVF{max(1, math.isqrt(rows))},PQ{codes}x4fsr,{'Refine(SQ8)' if int8 else 'RFlat'}"
    index = faiss.index_factory(dimensions, description, faiss.METRIC_INNER_PRODUCT)
    inverted = faiss.downcast_index(index.base_index)
    inverted.cp.seed = inverted.pq.cp.seed = seed % 2**31
    index.train(vectors)
    index.add(vectors)
    return index
