"""The protocol of an ANN backend, and what its implementations share: inputs, the head file, the registry."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact, PymkError, UsageError
from infra.settings import IndexSettings

HEAD = "backend.json"
HEAD_VERSION = 1

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Parameters = Mapping[str, int | float]
Hits = tuple[Int32, Float32]
"""rows int32 [Q, k] and scores float32 [Q, k]; best first, equal scores by row; padded with -1 and -inf."""


class Capability(StrEnum):
    """What a backend may offer beyond build, save, open and search.

    ADD: rows can be appended to a built index. REPEATABLE: a query has the same answer alone, in any batch, and with
    any number of threads.
    """

    ADD = "add"
    REPEATABLE = "repeatable"


class Unsupported(PymkError):
    """A backend was asked for something that it does not declare."""


@dataclass(frozen=True)
class Head:
    """What `backend.json` says of a saved index. files: name -> size in bytes of every other file."""

    name: str
    structure: str
    rows: int
    dimensions: int
    parameters: dict[str, int | float]
    files: dict[str, int]


class Backend(Protocol):
    """An index of n rows of d numbers, searched by inner product.

    Built with one thread, so that the same vectors, parameters and seed give the same index on any number of cores.
    The same call of `search` gives the same answer; see Capability.REPEATABLE for other calls.
    """

    name: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    parameters: dict[str, int | float]
    """Those it was built with, the search widened where recall asked for it."""

    @property
    def rows(self) -> int: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def structure(self) -> str:
        """What is really inside: "flat" where the backend chose exact search, "empty" for no rows."""
        ...

    @classmethod
    def parameters_from(cls, settings: IndexSettings) -> dict[str, int | float]:
        """The settings that this backend reads; they are part of the content hash."""
        ...

    @classmethod
    def build(cls, vectors: Float32, parameters: Parameters, seed: int) -> Self:
        """Indexes float32 [n, d]. Raises InputError on a vector that is not finite."""
        ...

    def save(self, folder: Path) -> None:
        """Writes the index and its head into an empty or new folder."""
        ...

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Opens a saved index. Raises CorruptArtifact where the files are not what their head says."""
        ...

    def search(self, queries: Float32, k: int, threads: int = 1) -> Hits:
        """The k best local rows of each query, float32 [Q, d]."""
        ...

    def add(self, vectors: Float32) -> None:
        """Appends rows. Raises Unsupported unless Capability.ADD is declared."""
        ...


MODULES = {
    "exact": ("index.exact", "Exact"),
    "hnsw": ("index.faiss_hnsw", "FaissHnsw"),
    "ivf_pq": ("index.faiss_ivf_pq", "FaissIvfPq"),
    "scann": ("index.scann_backend", "ScannBackend"),
}


def backend_named(name: str) -> type[Backend]:
    """The backend class of `settings.index.backend`; imports its library. Raises UsageError where that is missing."""
    if name not in MODULES:
        raise UsageError(f"index.backend: {name!r} is unknown", f"Known: {', '.join(MODULES)}.")
    module, attribute = MODULES[name]
    try:
        backend: type[Backend] = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        fix = "Install pymk[cpu] for FAISS, pymk[pipeline] for ScaNN, or choose another index.backend."
        raise UsageError(f"index.backend {name} needs {error.name}, which is not installed", fix) from None
    return backend


def open_backend(folder: Path) -> Backend:
    """Opens whichever backend was saved into the folder."""
    name = read_head(folder).name
    if name not in MODULES:
        raise CorruptArtifact(f"{folder / HEAD}: unknown backend {name!r}", f"Known: {', '.join(MODULES)}.")
    return backend_named(name).open(folder)


def write_head(folder: Path, backend: Backend) -> None:
    """Writes the head, last, over the files that the backend has just saved."""
    files = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.name != HEAD}
    head = Head(backend.name, backend.structure, backend.rows, backend.dimensions, backend.parameters, files)
    (folder / HEAD).write_text(json.dumps({"version": HEAD_VERSION, **asdict(head)}, indent=1, sort_keys=True))


def read_head(folder: Path, name: str | None = None) -> Head:
    """The head of a saved index, checked against the files beside it and, if given, the name of its backend."""
    values = read_json(folder / HEAD, HEAD_VERSION)
    try:
        head = Head(**values)
        sizes = {str(file): int(size) for file, size in head.files.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise CorruptArtifact(f"{folder / HEAD}: not the head of an index: {error}") from None
    if name is not None and head.name != name:
        raise CorruptArtifact(f"{folder}: holds a {head.name} index, not {name}")
    for file, size in sizes.items():
        _check_size(folder / file, size)
    return head


def read_json(path: Path, version: int) -> dict[str, Any]:
    """A JSON object without its version, which must be the given one."""
    try:
        values = json.loads(path.read_text())
        found = values.pop("version")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"{path}: cannot be read: {error}", "Build the index again.") from None
    if found != version:
        raise CorruptArtifact(f"{path}: version {found}, this code reads {version}", "Build the index again.")
    return dict(values)


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise CorruptArtifact(f"{path}: {found} bytes, its head says {size}", "Build the index again.")


def matrix(values: npt.ArrayLike, dimensions: int, what: str) -> Float32:
    """Contiguous float32 [n, dimensions]. Raises UsageError with both numbers where the width differs."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dimensions:
        raise UsageError(f"{what} are {array.shape}, the index has {dimensions} dimensions")
    return array


def finite_matrix(values: npt.ArrayLike, what: str) -> Float32:
    """Contiguous float32 [n, d] of finite numbers. Raises UsageError naming the first bad row."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(f"{what} are {array.shape}, not rows of numbers")
    bad = np.flatnonzero(~np.isfinite(array.sum(axis=1)))
    if len(bad):
        raise UsageError(f"{what}: {len(bad)} of {len(array)} rows are not finite, the first is row {bad[0]}")
    return array


def check_k(k: int) -> None:
    if k < 1:
        raise UsageError(f"k is {k}, it must be at least 1")
