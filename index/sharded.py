"""An index cut into shards: row r lives in shard r mod shards, at local row r // shards.

folder/index.json              what the index is, written last
folder/shard-00000/shard.json  which shard this is and the hash of its vectors and parameters
folder/shard-00000/…           the backend's files
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from index import backend
from index.backend import Backend, Float32, Hits
from index.ranked import PAD_ROW, merged
from infra.errors import CorruptArtifact, UsageError
from infra.hashing import ContentHash
from infra.settings import IndexSettings

INDEX_FILE, SHARD_FILE = "index.json", "shard.json"
IDS = "ids.npy"
"""Beside the shards where whoever asks knows no rows: the user id of each row, int64 [N]."""
VERSION = 1
QUERY_BLOCK = 4096
"""Queries searched at a time: re-ranking 1,000 of each then takes some 50 MiB a shard."""


@dataclass(frozen=True)
class IndexSpec:
    """How an index is built; with the vectors, all that its content depends on."""

    backend: str
    parameters: dict[str, int | float]
    shards: int
    seed: int

    @classmethod
    def from_settings(cls, settings: IndexSettings, seed: int) -> Self:
        parameters = backend.backend_named(settings.backend).parameters_from(settings)
        return cls(settings.backend, parameters, settings.shards, seed)

    def shard_seed(self, shard: int) -> int:
        """Unsigned 31 bits, another for each shard."""
        return int(np.random.SeedSequence([self.seed, shard]).generate_state(1)[0] >> 1)


@dataclass(frozen=True)
class ShardHead:
    """shard.json. rows: local rows; content_hash: of the shard's vectors and the spec."""

    shard: int
    shards: int
    rows: int
    dimensions: int
    content_hash: str


def shard_folder(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}"


def shard_vectors(vectors: Float32, spec: IndexSpec, shard: int) -> Float32:
    """The rows of one shard, float32 [ceil((n - shard) / shards), d], in memory."""
    return np.ascontiguousarray(vectors[shard :: spec.shards], np.float32)


def shard_hash(vectors: Float32, spec: IndexSpec, shard: int) -> str:
    """Hash of a shard's vectors and the spec; the same whoever builds it, and whatever the library writes."""
    digest = ContentHash().json("spec", asdict(spec)).json("shard", shard)
    return digest.array("vectors", vectors).hexdigest()


def build_shard(vectors: Float32, spec: IndexSpec, shard: int, folder: Path) -> ShardHead:
    """Builds one shard of float32 [n, d] (a memory map will do) into its folder under `folder`, with one thread.

    Whatever the shard's folder held is replaced. Raises UsageError for a shard that there is none of.
    """
    if not 0 <= shard < spec.shards:
        raise UsageError(f"shard {shard} of {spec.shards}: no such shard", f"Shards are 0 to {spec.shards - 1}.")
    own = shard_vectors(vectors, spec, shard)
    target = shard_folder(folder, shard)
    built = backend.backend_named(spec.backend).build(own, spec.parameters, spec.shard_seed(shard))
    if target.exists():
        shutil.rmtree(target)
    built.save(target)
    head = ShardHead(shard, spec.shards, len(own), vectors.shape[1], shard_hash(own, spec, shard))
    _write_json(target / SHARD_FILE, asdict(head))
    return head


def finish(folder: Path, spec: IndexSpec) -> str:
    """Checks that all shards are there and of one index, writes index.json and returns the index's content hash."""
    heads = [_shard_head(folder, shard, spec.shards) for shard in range(spec.shards)]
    rows = sum(head.rows for head in heads)
    for head in heads:
        expected = replace(head, rows=len(range(head.shard, rows, spec.shards)), dimensions=heads[0].dimensions)
        if head != expected:
            where = shard_folder(folder, head.shard)
            raise CorruptArtifact(f"{where}: {_size(head)}, beside the others it should be {_size(expected)}")
    digest = ContentHash()
    for head in heads:
        digest.text("shard", head.content_hash)
    values = asdict(spec) | {"rows": rows, "dimensions": heads[0].dimensions, "content_hash": digest.hexdigest()}
    _write_json(folder / INDEX_FILE, values)
    return digest.hexdigest()


class ShardedIndex:
    """All shards of a finished index, open in this process."""

    def __init__(self, shards: Sequence[Backend], rows: int, dimensions: int, threads: int = 1) -> None:
        self.rows = rows
        self.dimensions = dimensions
        self._shards = shards
        self._threads = threads

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> "ShardedIndex":
        """Opens every shard. threads: for a search; 1 in a forked worker (see faiss_base).

        Raises CorruptArtifact where a shard is missing, does not fit or cannot be read.
        """
        head = backend.read_json(folder / INDEX_FILE, VERSION)
        try:
            count, rows, dimensions = int(head["shards"]), int(head["rows"]), int(head["dimensions"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptArtifact(f"{folder / INDEX_FILE}: not the head of an index: {error!r}") from None
        shards = []
        for shard in range(count):
            _shard_head(folder, shard, count)
            opened = backend.open_backend(shard_folder(folder, shard))
            found, expected = (opened.rows, opened.dimensions), (len(range(shard, rows, count)), dimensions)
            if found != expected:
                raise CorruptArtifact(f"{shard_folder(folder, shard)}: {found} rows and dimensions, not {expected}")
            shards.append(opened)
        return cls(shards, rows, dimensions, threads)

    @property
    def structures(self) -> list[str]:
        """What each shard really is: a backend may search a small shard exactly."""
        return [shard.structure for shard in self._shards]

    def search(self, queries: Float32, k: int) -> Hits:
        """The k best rows of each query float32 [Q, d]: rows int32 [Q, k], scores float32 [Q, k] by inner product.

        Best first, equal scores by lower row, padded with row -1 and score -inf where the index has fewer than k.
        Raises UsageError for k < 1 or queries of another width.
        """
        backend.check_k(k)
        queries = backend.matrix(queries, self.dimensions, "queries")
        starts = range(0, max(1, len(queries)), QUERY_BLOCK)
        blocks = [self._search_block(queries[start : start + QUERY_BLOCK], k) for start in starts]
        return np.concatenate([rows for rows, _ in blocks]), np.concatenate([scores for _, scores in blocks])

    def _search_block(self, queries: Float32, k: int) -> Hits:
        found = [shard.search(queries, min(k, max(1, shard.rows)), self._threads) for shard in self._shards]
        width = max(rows.shape[1] for rows, _ in found)
        all_rows = np.full((len(found), len(queries), width), PAD_ROW, np.int32)
        all_scores = np.full(all_rows.shape, -np.inf, np.float32)
        for shard, (rows, scores) in enumerate(found):
            all_rows[shard, :, : rows.shape[1]] = np.where(rows < 0, PAD_ROW, rows * len(found) + shard)
            all_scores[shard, :, : rows.shape[1]] = scores
        return merged(all_rows, all_scores, k)


def _shard_head(folder: Path, shard: int, shards: int) -> ShardHead:
    path = shard_folder(folder, shard) / SHARD_FILE
    if not path.exists():
        raise CorruptArtifact(f"{path}: missing; the index has {shards} shards", "Build the index again.")
    try:
        head = ShardHead(**backend.read_json(path, VERSION))
    except TypeError as error:
        raise CorruptArtifact(f"{path}: not the head of a shard: {error}", "Build the index again.") from None
    if (head.shard, head.shards) != (shard, shards):
        raise CorruptArtifact(f"{path}: says shard {head.shard} of {head.shards}, expected {shard} of {shards}")
    return head


def _size(head: ShardHead) -> str:
    return f"{head.rows} rows of {head.dimensions} dimensions"


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps({"version": VERSION, **values}, indent=1, sort_keys=True))
