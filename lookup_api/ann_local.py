"""The shards of an index that this process maps itself."""

import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from index.backend import Backend, open_backend
from index.sharded import IDS, INDEX_FILE, shard_folder
from infra.errors import CorruptArtifact, PymkError
from lookup_api.ann import Float32, Found, Int64, merged, name_of
from lookup_api.deadline import Deadline

log = logging.getLogger(__name__)


class LocalShards:
    """The shards of an index that this process maps. missing: those that could not be opened, by name."""

    def __init__(
        self, shards: dict[int, Backend], of: int, dimensions: int, ids: Int64, missing: Sequence[str] = ()
    ) -> None:
        self.shards = shards
        self.of = of
        self.dimensions = dimensions
        self.missing = tuple(missing)
        self._ids = ids

    @classmethod
    def open(cls, folder: Path, wanted: Sequence[int] | None = None, damaged: Collection[str] = ()) -> "LocalShards":
        """Opens the shards of a finished index, or those wanted; one that does not open is left out.

        damaged: names of shard folders that are known not to be sound. Raises CorruptArtifact where there is
        no index, or nobody knows whose its rows are.
        """
        try:
            head = json.loads((folder / INDEX_FILE).read_bytes())
            of, dimensions = int(head["shards"]), int(head["dimensions"])
            ids = np.load(folder / IDS, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{folder}: no index that can be asked from outside: {error}") from None
        shards: dict[int, Backend] = {}
        missing = []
        for shard in range(of) if wanted is None else wanted:
            at = shard_folder(folder, shard)
            try:
                if at.name in damaged:
                    raise CorruptArtifact(f"{at}: missing or damaged", "Verify the release.")
                shards[shard] = open_backend(at)
            except (PymkError, OSError) as error:
                log.error("left out: %s", error)
                missing.append(name_of(shard))
        return cls(shards, of, dimensions, ids, missing)

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        parts, left_out = [], list(self.missing)
        for shard, backend in self.shards.items():
            if deadline.left_s <= 0:
                left_out.append(name_of(shard))
                continue
            rows, scores = backend.search(query[None, :], min(k, max(1, backend.rows)))
            kept = rows[0] >= 0
            ids = self._ids[rows[0][kept].astype(np.int64) * self.of + shard]
            parts.append((np.asarray(ids, np.int64), scores[0][kept]))
        return merged(parts, k, left_out)

    def close(self) -> None:
        self.shards = {}
