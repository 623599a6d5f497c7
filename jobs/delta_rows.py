"""The lake's rows for an hourly delta: read without Spark, column by column, and judged by the rules of the nightly."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from infra.columns import Target
from infra.errors import InputError
from infra.lake import (
    GIVEN,
    REASON,
    FileShape,
    Lake,
    cut_pieces,
    describe_file,
    merge_attributes,
    open_lake,
    read_piece,
)
from infra.schemas import AFFILIATIONS, LAKE_TABLES, QUARANTINE, USER_EVENT_NAMES, USER_EVENTS, LakeTable
from infra.store import ObjectStore, open_store
from jobs.transforms.erased import without_erased

ALWAYS_US, NEVER_US = -(2**63), 2**63 - 1
"""In place of a start or an end that is not known."""
EXAMPLES = 3

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """The time since the base: since_us <= t < until_us, microseconds since 1970 UTC."""

    since_us: int
    until_us: int

    @classmethod
    def between(cls, since: datetime, until: datetime) -> "Window":
        return cls(*(int(time.timestamp()) * 1_000_000 + time.microsecond for time in (since, until)))

    def holds(self, times_us: Int64) -> Mask:
        return (times_us >= self.since_us) & (times_us < self.until_us)

    def earlier(self, us: int) -> "Window":
        return Window(self.since_us - us, self.until_us - us)

    def widened(self, us: int) -> "Window":
        """Begins so much earlier."""
        return Window(self.since_us - us, self.until_us)


@dataclass(frozen=True)
class Rows:
    """Good rows of one batch that exist at the end of the window. start_us, end_us int64 [n]."""

    batch: pa.RecordBatch
    start_us: Int64
    end_us: Int64

    def ids(self, name: str) -> Int64:
        found: Int64 = self.batch.column(name).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        return found

    def where(self, kept: Mask) -> "Rows":
        return Rows(self.batch.filter(pa.array(kept)), self.start_us[kept], self.end_us[kept])


@dataclass
class Judged:
    """What the rules said of one table: rows read, bad ones by reason, and those of them dated within the window."""

    rows: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    quarantined: list[pa.Table] = field(default_factory=list)

    def count(self, name: str, bad: pa.RecordBatch, dated: Mask) -> None:
        for entry in pc.value_counts(bad.column(REASON)).to_pylist():
            self.bad[entry["values"]] = self.bad.get(entry["values"], 0) + entry["counts"]
        self.examples += bad.column(REASON).slice(0, EXAMPLES - min(len(self.examples), EXAMPLES)).to_pylist()
        own = bad.filter(pa.array(dated))
        columns = [pa.repeat(pa.scalar(name), own.num_rows), own.column(REASON), _given(own)]
        self.quarantined.append(pa.table(columns, schema=QUARANTINE))


class LakeRows:
    """The tables of one lake as they are at the end of a window; rows that name one of the erased do not exist."""

    def __init__(self, uri: str, window: Window, erased: Collection[int] = ()) -> None:
        """Raises InputError for a lake that cannot be used at all."""
        self.window = window
        self._lake: Lake = open_lake(uri)
        self._store: ObjectStore = open_store(uri)
        self._erased = frozenset(erased)
        self.judged: dict[str, Judged] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(name for name in LAKE_TABLES if name in self._lake.tables)

    @property
    def attributes(self) -> dict[str, Target]:
        """Attributes of the profiles by name; the i-th is the column attribute_<i>."""
        return merge_attributes([shape for _, shape in self._shapes.get("profiles", [])])

    def read(self, name: str) -> Iterator[Rows]:
        """Good rows; the first reading of a table also judges what is bad in it."""
        judged = None if name in self.judged else Judged()
        table = LAKE_TABLES[name]
        for batch in self._batches(name):
            reasons = reasons_of(batch, table)
            good = reasons.is_null().to_numpy(zero_copy_only=False)
            start, end = _times(batch, table.start, ALWAYS_US), _times(batch, table.end, NEVER_US)
            if judged is not None:
                judged.rows += batch.num_rows
                if not good.all():
                    bad = batch.set_column(batch.schema.get_field_index(REASON), REASON, reasons)
                    judged.count(name, bad.filter(pa.array(~good)), self.window.holds(start)[~good])
            yield Rows(batch, start, end).where(good & (start < self.window.until_us))
        if judged is not None:
            self.judged[name] = judged

    def refuse_bad(self, most: float) -> None:
        """Raises InputError where more than a share `most` of a table's rows are bad, as the nightly does."""
        for name, judged in self.judged.items():
            bad = sum(judged.bad.values())
            if bad > most * judged.rows:
                raise InputError(
                    f"table {name}: {bad:,} of {judged.rows:,} rows are bad ({bad / judged.rows:.1%}, at most "
                    f"{most:.1%} may be): {'; '.join(judged.examples)}",
                    "Mend the rows, or raise graph.max_bad_share.",
                )

    @property
    def quarantine(self) -> pa.Table:
        """Bad rows dated within the window, schema QUARANTINE; the others are the next night's."""
        found = [QUARANTINE.empty_table(), *(part for one in self.judged.values() for part in one.quarantined)]
        return pa.concat_tables(found).sort_by([(name, "ascending") for name in QUARANTINE.names])

    @cached_property
    def _shapes(self) -> dict[str, list[tuple[str, FileShape]]]:
        return {
            name: [(info.key, describe_file(self._store, LAKE_TABLES[name], info.key)) for info in files]
            for name, files in self._lake.tables.items()
        }

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        shapes = self._shapes.get(name, [])
        attributes = merge_attributes([shape for _, shape in shapes])
        for key, shape in shapes:
            for piece in cut_pieces(name, key, shape):
                for batch in read_piece(self._store, piece, attributes):
                    yield without_erased(batch, self._erased)


def reasons_of(batch: pa.RecordBatch, table: LakeTable) -> pa.Array:
    """Why each row is refused, null for a good one: what was found while it was read, then the rules of its table.

    The same rules, in the same order, as jobs.transforms.facts.judge.
    """
    found = batch.column(REASON)
    for broken, reason in _rules(batch, table):
        if pc.any(broken).as_py():
            found = pc.if_else(pc.and_(pc.is_null(found), pc.fill_null(broken, False)), reason, found)
    return found


def _rules(batch: pa.RecordBatch, table: LakeTable) -> Iterator[tuple[pa.Array, str]]:
    for name in table.required:
        yield pc.is_null(batch.column(name)), f"{name} is missing"
    if "other_id" in table.schema.names:
        yield pc.equal(batch.column("user_id"), batch.column("other_id")), "user_id and other_id are the same"
    if table.start and table.end:
        before = pc.less(batch.column(table.end), batch.column(table.start))
        yield before, f"{table.end} is before {table.start}"
    if table is USER_EVENTS:
        yield pc.invert(pc.is_in(batch.column("event"), pa.array(USER_EVENT_NAMES))), "event is unknown"
    if table is AFFILIATIONS:
        yield pc.less(batch.column("times"), 1), "times is below 1"


def _times(batch: pa.RecordBatch, name: str | None, missing: int) -> Int64:
    if name is None:
        return np.full(batch.num_rows, missing)
    found: Int64 = batch.column(name).cast(pa.int64()).fill_null(missing).to_numpy(zero_copy_only=False)
    return found


def _given(bad: pa.RecordBatch) -> pa.Array:
    """The rows as JSON: as they were read, or as they are."""
    given = bad.column(GIVEN).to_pylist()
    plain = bad.drop_columns([REASON, GIVEN]).to_pylist()
    texts = [known or orjson.dumps(row, default=str).decode() for known, row in zip(given, plain, strict=True)]
    return pa.array(texts, pa.string())
