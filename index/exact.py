"""Exact search: the reference, and the right choice for small graphs."""

from typing import Self

from index import backend
from index.backend import Float32, Parameters
from index.faiss_base import FLAT, FaissBackend, flat_index, one_openmp_thread
from infra.settings import IndexSettings


class Exact(FaissBackend):
    """Brute force over all rows."""

    name = "exact"
    magic = {FLAT: b"IxFI"}  # noqa: RUF012

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        return {}

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        with one_openmp_thread():
            return cls(flat_index(backend.finite_matrix(vectors, "vectors")), FLAT, parameters)
