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
from index.effort import QUERIES, RECALL_K
from index.ranked import Kept, rescored
from index.recall import recall_at, sampled_rows
from infra.errors import CorruptArtifact
from infra.settings import IndexSettings

FILE = "index.faiss"
FLAT = "flat"
SLACK = 8
"""Rows asked beyond k: FAISS adds up in another order for a batch, so the k-th and its neighbour may trade places."""

INT8_ROWS = 256
"""Rows below which vectors are kept whole whatever index.store says."""
MARGIN = 0.003
"""Recall given up where int8 bounds it: the last of it would cost a search of everything."""


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
    """A FAISS index that keeps the vectors. Subclasses build, find candidates, and say where the vectors are."""

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
            return rescored(self._kept, queries, np.empty((len(queries), 0), np.int32), k)
        if threads == 1:
            return self._search_part(queries, k)
        with ThreadPoolExecutor(threads) as pool:
            parts = np.array_split(queries, min(threads, len(queries)))
            rows, scores = zip(*pool.map(lambda part: self._search_part(part, k), parts), strict=True)
        return np.concatenate(rows), np.concatenate(scores)

    def _search_part(self, queries: Float32, k: int) -> Hits:
        with one_openmp_thread():
            found = self._candidates(queries, min(k + SLACK, self.rows))
        return rescored(self._kept, queries, found.astype(np.int32), k)

    def add(self, vectors: Float32) -> None:
        if Capability.ADD not in self.capabilities:
            raise Unsupported(f"index.backend {self.name} cannot add rows to a built index", "Build the shard again.")
        with one_openmp_thread():
            self._index.add(backend.finite_matrix(backend.matrix(vectors, self.dimensions, "vectors"), "vectors"))
        self._attach()

    def _attach(self) -> None:
        """Called whenever the FAISS index is new or has moved in memory."""
        self._kept = _kept(self._store())

    def _store(self) -> Any:
        """The IndexFlat or 8-bit IndexScalarQuantizer that holds the vectors."""
        return self._index

    def _candidates(self, queries: Float32, k: int) -> Int32:
        return self._index.search(queries, k)[1]

    @classmethod
    def _magic_of(cls, folder: Path, head: Head) -> bytes:
        if head.structure not in cls.magic or FILE not in head.files:
            raise CorruptArtifact(f"{folder}: {head.structure!r} is no structure of the {cls.name} backend")
        return cls.magic[head.structure]


def store_bits(settings: IndexSettings) -> int:
    """Bits a dimension of the vectors that an index keeps."""
    return 8 if settings.store == "int8" else 32


def keeps_int8(vectors: Float32, parameters: Parameters) -> bool:
    """Whether to keep a byte a dimension; a few rows are kept whole: they save nothing and train no range."""
    return int(parameters["store_bits"]) == 8 and len(vectors) >= INT8_ROWS


def reachable(target: float, store: Any, vectors: Float32, seed: int) -> float:
    """The target, or nearly all the recall that the vectors as kept allow: no wider search finds more."""
    if isinstance(store, faiss.IndexFlat):
        return target
    with one_openmp_thread():
        queries = sampled_rows(len(vectors), QUERIES, seed)
        return min(target, recall_at(_Exhaustive(store), vectors, queries, RECALL_K) - MARGIN)


class _Exhaustive:
    """A FAISS index in the shape that `recall_at` takes."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def search(self, queries: Float32, k: int) -> Hits:
        scores, rows = self._index.search(queries, k)
        return rows.astype(np.int32), scores


def _kept(store: Any) -> Kept:
    """Views of the memory that a FAISS index keeps its vectors in. Raises CorruptArtifact for another kind of index."""
    rows, dimensions = int(store.ntotal), int(store.d)
    size = rows * dimensions
    if isinstance(store, faiss.IndexFlat):
        whole = faiss.rev_swig_ptr(store.get_xb(), size) if size else np.empty(0, np.float32)
        return Kept.whole(whole.reshape(rows, dimensions))
    if not isinstance(store, faiss.IndexScalarQuantizer) or store.sq.qtype != faiss.ScalarQuantizer.QT_8bit:
        raise CorruptArtifact(f"a FAISS {type(store).__name__} holds no vectors that can be read")
    codes = faiss.rev_swig_ptr(store.codes.data(), size) if size else np.empty(0, np.uint8)
    low, width = faiss.vector_to_array(store.sq.trained).reshape(2, dimensions)
    return Kept(codes.reshape(rows, dimensions), width / np.float32(255), low + width * np.float32(0.5 / 255))


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
