"""What the FAISS backends share: files, threads, and exact scores of what FAISS found.

FAISS starts OpenMP threads. A search in a forked child hangs if it wants more than one of them (FAISS issue 5206), and
on a busy machine they wait for each other spinning. So FAISS always gets one, and `threads` are Python's: FAISS and the
kernels here release the interpreter lock.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import faiss
import numpy as np

from index import backend
from index.backend import Capability, Float32, Head, Hits, Int32, Parameters, Unsupported
from index.ranked import rescored
from infra.errors import CorruptArtifact
from infra.settings import IndexSettings

FILE = "index.faiss"
FLAT = "flat"
SLACK = 8
"""Rows asked beyond k: FAISS adds up in another order for a batch, so the k-th and its neighbour may trade places."""


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Keeps FAISS, called from this thread within the block, to this thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class FaissBackend(ABC):
    """A FAISS index that keeps the full vectors. Subclasses build, find candidates, and say where the vectors are."""

    name: ClassVar[str]
    magic: ClassVar[dict[str, bytes]]
    """structure -> first four bytes of its FAISS file."""
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.ADD, Capability.REPEATABLE})

    def __init__(self, index: Any, structure: str, parameters: Parameters) -> None:
        self._index = index
        self.structure = structure
        self.parameters = dict(parameters)
        self._attach()

    @property
    def rows(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    @classmethod
    @abstractmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]: ...

    @classmethod
    @abstractmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self: ...

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._index, str(folder / FILE))
        backend.write_head(folder, self)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Memory-maps the vectors and codes, so that the workers of one machine share them."""
        head = backend.read_head(folder, cls.name)
        opened = cls(_read(folder / FILE, cls._magic_of(folder, head)), head.structure, head.parameters)
        if (opened.rows, opened.dimensions) != (head.rows, head.dimensions):
            found = f"{opened.rows} x {opened.dimensions}"
            raise CorruptArtifact(f"{folder / FILE}: {found}, its head says {head.rows} x {head.dimensions}")
        return opened

    def search(self, queries: Float32, k: int, threads: int = 1) -> Hits:
        backend.check_k(k)
        queries = backend.matrix(queries, self.dimensions, "queries")
        if not (self.rows and len(queries)):
            return rescored(self._vectors, queries, np.empty((len(queries), 0), np.int32), k)
        if threads == 1:
            return self._search_part(queries, k)
        with ThreadPoolExecutor(threads) as pool:
            parts = np.array_split(queries, min(threads, len(queries)))
            rows, scores = zip(*pool.map(lambda part: self._search_part(part, k), parts), strict=True)
        return np.concatenate(rows), np.concatenate(scores)

    def _search_part(self, queries: Float32, k: int) -> Hits:
        with one_openmp_thread():
            found = self._candidates(queries, min(k + SLACK, self.rows))
        return rescored(self._vectors, queries, found.astype(np.int32), k)

    def add(self, vectors: Float32) -> None:
        if Capability.ADD not in self.capabilities:
            raise Unsupported(f"index.backend {self.name} cannot add rows to a built index", "Build the shard again.")
        with one_openmp_thread():
            self._index.add(backend.finite_matrix(backend.matrix(vectors, self.dimensions, "vectors"), "vectors"))
        self._attach()

    def _attach(self) -> None:
        """Called whenever the FAISS index is new or has moved in memory."""
        size = self.rows * self.dimensions
        values = faiss.rev_swig_ptr(self._flat().get_xb(), size) if size else np.empty(0, np.float32)
        self._vectors: Float32 = values.reshape(self.rows, self.dimensions)

    def _flat(self) -> Any:
        """The IndexFlat that holds the vectors."""
        return self._index

    def _candidates(self, queries: Float32, k: int) -> Int32:
        return self._index.search(queries, k)[1]

    @classmethod
    def _magic_of(cls, folder: Path, head: Head) -> bytes:
        if head.structure not in cls.magic or FILE not in head.files:
            raise CorruptArtifact(f"{folder}: {head.structure!r} is no structure of the {cls.name} backend")
        return cls.magic[head.structure]


def flat_index(vectors: Float32) -> Any:
    """Exact search over float32 [n, d]."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _read(path: Path, magic: bytes) -> Any:
    with path.open("rb") as f:
        found = f.read(len(magic))
    if found != magic:
        raise CorruptArtifact(f"{path}: begins with {found!r}, not {magic!r}", "Build the index again.")
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise CorruptArtifact(f"{path}: FAISS cannot read it: {error}", "Build the index again.") from None
