"""Reads the pair features block by block and scores them with the ranker: the batch side of the live path."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from infra.graph import Graph, ViewName, open_array
from lookup_api.ranking.features import PAIR_FEATURES, assemble
from lookup_api.ranking.scoring import RankingModel, RanksPairs

CHUNK = 32_768
"""Pairs scored at a time: the ranker's input stays in cache and memory stays flat."""

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pairs:
    """Pairs of one block, by user row, then candidate row. user, candidate int32 [n]; sources uint8 [n];
    features float16 [n, P]."""

    user: Int32
    candidate: Int32
    sources: npt.NDArray[np.uint8]
    features: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def read(cls, path: Path) -> "Pairs":
        table = pq.read_table(path)
        features = np.empty((table.num_rows, len(PAIR_FEATURES)), np.float16)
        for place, name in enumerate(PAIR_FEATURES):
            features[:, place] = table[name].to_numpy()
        user, candidate, sources = (table[name].to_numpy() for name in ("user_row", "candidate_row", "sources"))
        return cls(user, candidate, sources, features)

    def of_users(self, first: int, last: int) -> "Pairs":
        """Those of the users first .. last - 1."""
        start, end = np.searchsorted(self.user, [first, last])
        return Pairs(self.user[start:end], self.candidate[start:end], self.sources[start:end], self.features[start:end])

    def take(self, places: npt.NDArray[np.int64]) -> "Pairs":
        return Pairs(self.user[places], self.candidate[places], self.sources[places], self.features[places])


@dataclass(frozen=True)
class Block:
    """Users first .. last - 1, whose pairs are in one file, or nowhere (path is None)."""

    first: int
    last: int
    path: Path | None

    def pairs(self) -> Pairs:
        if self.path is not None:
            return Pairs.read(self.path).of_users(self.first, self.last)
        none = np.zeros(0, np.int32)
        return Pairs(none, none, none.astype(np.uint8), np.zeros((0, len(PAIR_FEATURES)), np.float16))


def blocks_of(folder: Path, users: int) -> list[Block]:
    """Cuts users 0 .. users - 1 at the first user of each part file that holds any pair."""
    firsts = [
        (first, path) for path in sorted(folder.glob("part-*.parquet")) if (first := _first_user(path)) is not None
    ]
    if not firsts:
        return [Block(0, users, None)]
    cuts = [0, *(first for first, _ in firsts[1:]), users]
    return [Block(a, b, path) for (a, b), (_, path) in zip(pairwise(cuts), firsts, strict=True)]


def _first_user(path: Path) -> int | None:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1, columns=["user_row"]):
            return int(batch.column(0)[0].as_py())
    return None


@dataclass(frozen=True)
class Scorer:
    """A ranking model over one view's user features float32 [N, U]."""

    model: RanksPairs
    user_features: Float32

    @classmethod
    def open(cls, features: Path, ranker: Path, view: ViewName) -> "Scorer":
        return cls(RankingModel.open(ranker), open_array(features / view / "user_features.npy"))

    def score(self, pairs: Pairs) -> Float32:
        """float32 [n], higher is better."""
        scores = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), CHUNK):
            part = slice(start, start + CHUNK)
            viewer, candidate = pairs.user[part], pairs.candidate[part]
            matrix = assemble(pairs.features[part], self.user_features[viewer], self.user_features[candidate])
            scores[part] = self.model.score(matrix)
        return scores


@lru_cache(maxsize=4)
def open_scorer(features: Path, ranker: Path, view: ViewName) -> Scorer:
    """Scorer.open, once a process: a Spark worker handles many blocks."""
    return Scorer.open(features, ranker, view)


@lru_cache(maxsize=4)
def open_graph(path: Path) -> Graph:
    """Graph.open, once a process."""
    return Graph.open(path)
