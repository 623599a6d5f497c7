"""Pairs of user ids into sorted blocks of graph rows.

Spark moves one row a block of users and batch, its entries packed as bytes, so that a shuffle costs what its bytes cost
and not what its rows do; sorting and merging are numpy over whole blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from infra.graph import NO_DAY
from jobs.spark import explained

Array = npt.NDArray[np.int32]

_HEAD = [("layer", pa.int32()), ("block", pa.int32())]
_PACKED = pa.schema(_HEAD + [(name, pa.binary()) for name in ("rows", "columns", "days")])
_MERGED = pa.schema(_HEAD + [(name, pa.binary()) for name in ("degrees", "columns", "days", "counts")])
_SPARK_PACKED = "layer int, block int, rows binary, columns binary, days binary"
_SPARK_MERGED = "layer int, block int, degrees binary, columns binary, days binary, counts binary"


@dataclass(frozen=True)
class Blocks:
    """Rows 0 .. users-1 cut into `count` blocks of `size` rows; the last may be shorter."""

    users: int
    count: int

    @property
    def size(self) -> int:
        return max(1, -(-self.users // self.count))


def block_pairs(pairs: DataFrame, ids: npt.NDArray[np.int64], blocks: Blocks) -> DataFrame:
    """The graph's rows in blocks: layer, block, and as packed int32 arrays the entries of each of the block's rows.

    pairs: layer int, user_id, other_id, day int (null: unknown), both boolean (whether the pair holds in both
    directions). ids: int64 [N], ascending; a pair with anyone else is dropped. Equal pairs of a layer merge.
    Out: degrees [rows of the block]; columns, ascending in each row, the earliest day (NO_DAY if any is unknown) and
    the count of merged pairs, [sum of degrees] each. A layer has no row for a block without entries.
    """
    known = pairs.sparkSession.sparkContext.broadcast(ids)

    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with explained("packing pairs"):
                yield pack_pairs(batch, known.value, blocks)

    def merge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with explained("merging pairs"):
            yield from merge_blocks(pa.Table.from_batches(batches, _PACKED), blocks)

    packed = pairs.select("layer", "user_id", "other_id", "day", "both").mapInArrow(pack, _SPARK_PACKED)
    placed = packed.repartitionById(blocks.count, F.col("block"))
    return placed.mapInArrow(merge, _SPARK_MERGED)


def pairs_of(pairs: DataFrame, people: npt.NDArray[np.int64]) -> DataFrame:
    """user_id, other_id of all pairs whose user_id is one of `people`, with repeats; one that holds in both directions
    is taken in both.

    pairs: as block_pairs takes them. people: int64, ascending.
    """
    known = pairs.sparkSession.sparkContext.broadcast(people)

    def find(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with explained("finding pairs"):
                yield directed_pairs(batch, known.value)

    return pairs.select("user_id", "other_id", "both").mapInArrow(find, "user_id bigint, other_id bigint")


def directed_pairs(batch: pa.RecordBatch, people: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """What `pairs_of` takes of one batch."""
    user, other = batch.column("user_id"), batch.column("other_id")
    both = batch.column("both").to_numpy(zero_copy_only=False)
    mine, theirs = _rows_of(people, user) >= 0, both & (_rows_of(people, other) >= 0)
    chosen = np.concatenate([user.to_numpy()[mine], other.to_numpy()[theirs]])
    others = np.concatenate([other.to_numpy()[mine], user.to_numpy()[theirs]])
    return pa.RecordBatch.from_arrays([pa.array(chosen), pa.array(others)], ["user_id", "other_id"])


def pack_pairs(batch: pa.RecordBatch, ids: npt.NDArray[np.int64], blocks: Blocks) -> pa.RecordBatch:
    """One row for each layer and block with entries, the entries as packed int32 arrays."""
    row, column = (_rows_of(ids, batch.column(name)) for name in ("user_id", "other_id"))
    layer = batch.column("layer").to_numpy()
    day = batch.column("day").fill_null(int(NO_DAY)).to_numpy()
    both = batch.column("both").to_numpy(zero_copy_only=False) & (row >= 0) & (column >= 0)
    row, column = np.concatenate([row, column[both]]), np.concatenate([column, row[both]])
    layer, day = np.concatenate([layer, layer[both]]), np.concatenate([day, day[both]])
    place = np.where((row >= 0) & (column >= 0), layer * blocks.count + row // blocks.size, -1)
    order = np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :]
    places, starts = np.unique(place[order], return_index=True)
    entries = [np.split(values[order], starts[1:]) if len(places) else [] for values in (row, column, day)]
    packed = [pa.array([part.astype(np.int32).tobytes() for part in parts], pa.binary()) for parts in entries]
    head = [pa.array(places // blocks.count, pa.int32()), pa.array(places % blocks.count, pa.int32())]
    return pa.RecordBatch.from_arrays([*head, *packed], schema=_PACKED)


def _rows_of(ids: npt.NDArray[np.int64], user_ids: pa.Array) -> npt.NDArray[np.int64]:
    wanted = user_ids.to_numpy()
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1) if len(ids) else np.full(len(wanted), -1)


def merge_blocks(packed: pa.Table, blocks: Blocks) -> Iterator[pa.RecordBatch]:
    """Joins what belongs to one layer and block; see `block_pairs` for the columns."""
    keys = np.stack([packed["layer"].to_numpy(), packed["block"].to_numpy()], axis=1)
    for layer, block in np.unique(keys, axis=0).tolist():
        parts = packed.filter(pa.array((keys == (layer, block)).all(axis=1)))
        row, column, day = (_unpack(parts[name]) for name in ("rows", "columns", "days"))
        merged = merge_entries(row - block * blocks.size, column, day, blocks.size)
        values = [layer, block, *(array.tobytes() for array in merged)]
        yield pa.RecordBatch.from_pydict(dict(zip(_MERGED.names, ([v] for v in values), strict=True)), schema=_MERGED)


def _unpack(packed: pa.ChunkedArray) -> Array:
    return np.frombuffer(b"".join(packed.to_pylist()), np.int32)


def merge_entries(row: Array, column: Array, day: Array, rows: int) -> tuple[Array, Array, Array, Array]:
    """Sorts entries by (row, column) and merges equal ones: degrees [rows], columns, earliest days, counts."""
    key = (row.astype(np.int64) << 32) | column
    order = np.argsort(key)
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    counts = np.diff(starts, append=len(key))
    days = np.minimum.reduceat(day[order], starts) if len(starts) else day
    degrees = np.bincount(key[starts] >> 32, minlength=rows)
    columns = (key[starts] & 0xFFFFFFFF).astype(np.int32)
    return degrees.astype(np.int32), columns, days, counts.astype(np.int32)
