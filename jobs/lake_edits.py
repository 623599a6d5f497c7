"""Edits of tables that are in the lake: facts that ended, and people who leave it.

A file that holds no row in question stays as it is; another is written anew under its own name, in one step, with every
other column and row as they were. An edit that died half way is done again from the start.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.columns import convert
from infra.errors import InputError
from infra.lake import open_lake
from infra.schemas import LAKE_TABLES, TIMESTAMP, LakeTable
from infra.store import ObjectStore, open_store

ROW_GROUP = 1_000_000
ALWAYS_US, NEVER_US = -(2**63), 2**63 - 1
PEOPLE = ("user_id", "other_id")

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Edit(Protocol):
    """An edit of one table."""

    def touches(self, ids: pa.Table) -> bool:
        """Whether there may be something to edit, from the columns of PEOPLE alone."""
        ...

    def edited(self, table: pa.Table) -> pa.Table | None:
        """A file's rows with the edit, None where there was nothing to edit."""
        ...


def edit_tables(lake: str, edits: Mapping[str, Edit]) -> int:
    """Edits the files of tables, by table; returns the files written anew."""
    store, tables = open_store(lake), open_lake(lake).tables
    files = [(info.key, edit) for name, edit in edits.items() for info in tables.get(name, ())]
    return sum(_edit_file(store, key, edit) for key, edit in files)


def _edit_file(store: ObjectStore, key: str, edit: Edit) -> bool:
    with _opened(store, key) as file:
        edited = edit.edited(file.read()) if edit.touches(_ids(file)) else None
    if edited is not None:
        put_table(store, key, edited)
    return edited is not None


@contextmanager
def _opened(store: ObjectStore, key: str) -> Iterator[pq.ParquetFile]:
    """Raises InputError for what cannot be read."""
    path = store.open_local(key)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        fix = "Write it anew, or take it out of the lake."
        raise InputError(f"{store.uri}/{key}: not a readable Parquet file: {error}", fix) from error


def _ids(file: pq.ParquetFile) -> pa.Table:
    return file.read(columns=[name for name in file.schema_arrow.names if name in PEOPLE])


def put_table(store: ObjectStore, key: str, table: pa.Table) -> None:
    """Stores a Parquet file, in place of one of that name."""
    with TemporaryDirectory(prefix="pymk-lake-") as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)
        store.upload(path, key)


class Removal:
    """Takes every row out that names one of the people. rows: how many were."""

    def __init__(self, people: Sequence[int]) -> None:
        self._people = people
        self.rows = 0

    def touches(self, ids: pa.Table) -> bool:
        return bool(names_people(ids, self._people).any())

    def edited(self, table: pa.Table) -> pa.Table | None:
        named = names_people(table, self._people)
        self.rows += int(named.sum())
        return table.filter(pa.array(~named)) if named.any() else None


def remove_people(lake: str, people: Sequence[int]) -> dict[str, int]:
    """Removes every row that names one of the people; returns how many, by table, where there are any."""
    removals = {name: Removal(people) for name in LAKE_TABLES}
    edit_tables(lake, removals)
    return {name: removal.rows for name, removal in removals.items() if removal.rows}


def lake_names(lake: str, people: Sequence[int]) -> bool:
    """Whether any row names one of the people. Raises InputError for a file that cannot be read."""
    store, tables = open_store(lake), open_lake(lake).tables
    for info in (info for name in LAKE_TABLES for info in tables.get(name, ())):
        with _opened(store, info.key) as file:
            if names_people(_ids(file), people).any():
                return True
    return False


def names_people(table: pa.Table, people: Sequence[int]) -> Mask:
    """bool [rows]: whether a row names one of the people, as an id or as part of a text that is no id."""
    wanted = pa.array(people, pa.int64())
    named = np.zeros(table.num_rows, bool)
    for name in PEOPLE:
        if name not in table.column_names:
            continue
        column = table[name].combine_chunks()
        ids = convert(column, pa.int64()).values
        named |= np.asarray(pc.is_in(ids, wanted).to_numpy(zero_copy_only=False), bool)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            inside = "|".join(re.escape(str(person)) for person in people)
            found = pc.match_substring_regex(column, rf"(^|[^0-9-])({inside})([^0-9]|$)").fill_null(False)
            named |= np.asarray(found.to_numpy(zero_copy_only=False), bool)
    return named


class Endings:
    """When facts of pairs of a table ended: that of (user, other)[n] at at_us[n], in any order, with repeats."""

    def __init__(self, table: LakeTable, user: Int64, other: Int64, at_us: Int64) -> None:
        self.table = table
        self.mutual = table.name == "connections"
        self._pairs = self._ordered(user, other)
        self._at_us = at_us

    def _ordered(self, user: Int64, other: Int64) -> Int64:
        """int64 [n, 2]; of a mutual fact the smaller id first."""
        pairs = np.stack([user, other], axis=1).astype(np.int64)
        return np.sort(pairs, axis=1) if self.mutual else pairs

    def touches(self, ids: pa.Table) -> bool:
        return bool(len(self._likely(ids)))

    def edited(self, table: pa.Table) -> pa.Table | None:
        """Ends each row that is of one of the pairs at the first ending since its start, unless it ended before."""
        rows = self._likely(table)
        user, other, start, end = (_values(table, name, rows) for name in self._columns)
        start, end = start.fill_null(ALWAYS_US).to_numpy(), end.fill_null(NEVER_US).to_numpy()
        ended = first_since(self._pairs, self._at_us, self._ordered(user.to_numpy(), other.to_numpy()), start)
        earlier = ended < end
        if not earlier.any():
            return None
        return _with_ends(table, self._columns[-1], rows[earlier], ended[earlier])

    @property
    def _columns(self) -> tuple[str, str, str, str]:
        return (*PEOPLE, str(self.table.start), str(self.table.end))

    def _likely(self, table: pa.Table) -> Int64:
        """Rows of which both people are in some pair."""
        people = pa.array(np.unique(self._pairs))
        user, other = (convert(table[name].combine_chunks(), pa.int64()).values for name in PEOPLE)
        likely = pc.and_(pc.is_in(user, people), pc.is_in(other, people))
        return np.flatnonzero(likely.to_numpy(zero_copy_only=False))


def _values(table: pa.Table, name: str, rows: Int64) -> pa.Array:
    """int64 values of a column at some rows, times as microseconds; nulls where there is no such column."""
    if name not in table.column_names:
        return pa.nulls(len(rows), pa.int64())
    kind = pa.int64() if name in PEOPLE else TIMESTAMP
    return convert(table[name].combine_chunks().take(pa.array(rows)), kind).values.cast(pa.int64())


def first_since(pairs: Int64, at_us: Int64, wanted: Int64, since_us: Int64) -> Int64:
    """For each wanted pair the first of its times that is not before `since_us`, NEVER_US where there is none.

    pairs int64 [n, 2], at_us int64 [n]; wanted int64 [m, 2], since_us int64 [m].
    """
    _, code = np.unique(np.concatenate([pairs, wanted]), axis=0, return_inverse=True)
    times = np.concatenate([at_us, since_us])
    asks = np.arange(len(times)) >= len(pairs)
    order = np.lexsort((~asks, times, code.reshape(-1)))  # a question before an answer of the same time
    answers = np.where(asks[order], len(order), np.arange(len(order)))
    following = np.minimum.accumulate(answers[::-1])[::-1]
    place = np.minimum(following, len(order) - 1)
    same = (following < len(order)) & (code.reshape(-1)[order[place]] == code.reshape(-1)[order])
    found = np.empty(len(times), np.int64)
    found[order] = np.where(same, times[order[place]], NEVER_US)
    return found[len(pairs) :]


def _with_ends(table: pa.Table, name: str, rows: Int64, at_us: Int64) -> pa.Table:
    """The table with times in a column, which is made if it is missing. A column that holds more than times is text."""
    mask = np.zeros(table.num_rows, bool)
    mask[rows] = True
    times = pa.array(at_us[np.argsort(rows)]).cast(TIMESTAMP)
    if name not in table.column_names:
        return table.append_column(name, pc.replace_with_mask(pa.nulls(len(mask), TIMESTAMP), pa.array(mask), times))
    column = table[name].combine_chunks()
    converted = convert(column, TIMESTAMP)
    kept = converted.values
    if converted.faults:
        kept, times = column.cast(pa.string()), pc.strftime(times, "%Y-%m-%dT%H:%M:%SZ")
    place = table.column_names.index(name)
    return table.set_column(place, name, pc.replace_with_mask(kept, pa.array(mask), times))
