"""Whom inactive users must not be shown, should an event let them in again before the next night knows them.

They have no rows in the graph. What the lake says of their friends, blocks and dismissals is kept beside it, and goes
into the serving tables as their bars, the only row that they have there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.blob_writer import Blobs, Ragged, encode_bars
from infra.graph import Int64

FILE = "inactive_bars.parquet"
INACTIVE_BARS = pa.schema([("user_id", pa.int64()), ("other_id", pa.int64())])


@dataclass(frozen=True)
class BarRows:
    """Rows of the serving table BARS. keys: ids int64, ascending; blobs: a row each."""

    keys: Int64
    blobs: Blobs

    @classmethod
    def of(cls, user: Int64, other: Int64, keys: Int64 | None = None) -> "BarRows":
        """From distinct pairs, ascending by user and other. keys: who gets a row, by default who has a pair."""
        everybody = np.unique(user) if keys is None else keys
        lengths = np.searchsorted(user, everybody, "right") - np.searchsorted(user, everybody)
        return cls(everybody, encode_bars(Ragged.of_lengths(other, lengths)))

    @classmethod
    def open(cls, graph: Path) -> "BarRows":
        """Those of a graph artifact's inactive users; none where it was made without."""
        none = np.zeros(0, np.int64)
        if not (graph / FILE).exists():
            return cls.of(none, none)
        table = pq.read_table(graph / FILE, schema=INACTIVE_BARS)
        return cls.of(table["user_id"].to_numpy(), table["other_id"].to_numpy())

    def taken_below(self, key: int) -> "tuple[BarRows, BarRows]":
        """Those of keys below `key`, and the others."""
        cut = int(np.searchsorted(self.keys, key))
        at = int(self.blobs.starts[cut]) if cut < len(self.keys) else len(self.blobs.data)
        data, ends = self.blobs.data, self.blobs.ends
        below = BarRows(self.keys[:cut], Blobs(data[:at], ends[:cut]))
        return below, BarRows(self.keys[cut:], Blobs(data[at:], ends[cut:] - at))

    def merged(self, other: "BarRows") -> "BarRows":
        """Both, which name nobody twice."""
        if not len(other.keys):
            return self
        keys = np.concatenate([self.keys, other.keys])
        data = np.concatenate([self.blobs.data, other.blobs.data])
        starts = np.concatenate([self.blobs.starts, other.blobs.starts + len(self.blobs.data)])
        ends = np.concatenate([self.blobs.ends, other.blobs.ends + len(self.blobs.data)])
        order = np.argsort(keys)
        lengths = (ends - starts)[order]
        new_ends = np.cumsum(lengths, dtype=np.int64)
        places = np.arange(len(data)) + np.repeat(starts[order] - (new_ends - lengths), lengths)
        return BarRows(keys[order], Blobs(data[places], new_ends))


def table_of(user: Int64, other: Int64, erased: npt.NDArray[np.int64]) -> pa.Table:
    """Distinct pairs without those erased, schema INACTIVE_BARS, ascending."""
    stays = ~np.isin(other, erased)
    pairs = np.unique(np.stack([user[stays], other[stays]], axis=1), axis=0)
    return pa.table([pairs[:, 0], pairs[:, 1]], schema=INACTIVE_BARS)
