"""The lake: Parquet tables under one URI, read by file list through the object store.

Files may be named and cut as their writers like; every value comes out in the types of infra.schemas, and a row with a
value that cannot be converted comes out with the reason and the row as it was.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.columns import Target, accepts, attribute_target, convert, target_of
from infra.errors import InputError
from infra.schemas import CONNECTIONS, LAKE_TABLES, LakeTable
from infra.store import ObjectInfo, ObjectStore, open_store
from infra.store_folder import FolderStore

BATCH_ROWS = 500_000
"""Rows converted at a time."""
PIECE_ROWS = 1_000_000
"""Rows of a file read as one piece of work, unless its row groups are larger."""

REASON, GIVEN = "reason", "given"
"""Columns that `read_piece` adds: why a row is refused (else null), and the row as JSON as it was (else null)."""

UNFINISHED = "_UNFINISHED"
"""Object that the lake holds while a writer replaces its tables, and after one that was killed."""

_EXPECTED = {"integer": "an integer", "text": "text or an integer", "time": "a timestamp or a date"}
_ATTRIBUTE_TYPES: Mapping[Target, pa.DataType] = {"integer": pa.int64(), "text": pa.string()}


@dataclass(frozen=True)
class Lake:
    """tables: the files of each table that is there. ignored: other folders, but for hidden ones."""

    uri: str
    tables: Mapping[str, tuple[ObjectInfo, ...]]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some row groups of one file of a table: a unit of reading."""

    table: str
    key: str
    groups: tuple[int, ...]


@dataclass(frozen=True)
class FileShape:
    """What a file's footer says. group_rows: rows of each row group. attributes: unknown columns a table keeps."""

    group_rows: tuple[int, ...]
    attributes: Mapping[str, Target]


def open_lake(uri: str) -> Lake:
    """Lists the tables.

    Raises InputError where connections are missing or a writer has not finished, StoreError where there is no lake.
    """
    store = open_store(uri)
    if store.exists(UNFINISHED):
        fix = "Wait for it; if it was killed, run `pymk import` or `pymk sample` again with --replace."
        raise InputError(f"{uri}: its tables are half written: a writer is at work or was killed", fix)
    found = store.folders("")
    tables = {name: tuple(_files(store, name)) for name in found if name in LAKE_TABLES}
    tables = {name: files for name, files in tables.items() if files}
    if CONNECTIONS.name not in tables:
        named = ", ".join(found) or "nothing"
        raise InputError(
            f"{uri}: no table connections, found {named}",
            "A lake holds one folder of Parquet files a table; `pymk import` and `pymk sample` make one.",
        )
    return Lake(uri, tables, tuple(name for name in found if name not in LAKE_TABLES and name[0] not in "._"))


def _files(store: ObjectStore, table: str) -> Iterator[ObjectInfo]:
    """Every file below the table's folder, but for those that writers leave beside their data (_SUCCESS, .crc)."""
    for info in store.list(f"{table}/"):
        if not any(part.startswith(("_", ".")) for part in info.key.split("/")[1:]):
            yield info


def lake_fingerprint(uri: str) -> str:
    """sha256 over the content of every table, whatever the names, order and times of its files.

    A folder's files count with their bytes, those of S3 with etag and size, which spare the download.
    """
    lake, store = open_lake(uri), open_store(uri)
    contents = [
        (table, _file_sha256(store.open_local(info.key)) if isinstance(store, FolderStore) else _version(info))
        for table, files in lake.tables.items()
        for info in files
    ]
    return hashlib.sha256(orjson.dumps(sorted(contents))).hexdigest()


def _version(info: ObjectInfo) -> str:
    return f"{info.etag}:{info.size_bytes}"


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as error:
        fix = "Give this user the right to read every file of the lake, or take this one out."
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", fix) from error


def describe_file(store: ObjectStore, table: LakeTable, key: str) -> FileShape:
    """Reads a file's footer.

    Raises InputError for a file that is not Parquet, a required column that is missing and a column of a type that
    cannot hold its values.
    """
    where = f"{store.uri}/{key}"
    with _readable(where), pq.ParquetFile(store.open_local(key)) as file:
        schema = file.schema_arrow
        rows = tuple(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups))
    for name in table.required:
        if name not in schema.names:
            expected = table.schema.field(name).type
            raise InputError(
                f"{where}: {table.name} needs a column {name} ({expected}), found {schema.names}",
                "Rename or add the column in every file of the table; docs/tables.md lists them.",
            )
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise InputError(
                f"{where}: column {name} of {table.name} is there more than once", "Rename or drop one of them."
            )
    return FileShape(rows, _attributes(where, table, schema))


def _attributes(where: str, table: LakeTable, schema: pa.Schema) -> dict[str, Target]:
    """Attributes among the columns of a file, after a check of every column's type."""
    attributes: dict[str, Target] = {}
    for column in schema:
        if column.name in table.schema.names:
            expected = target_of(table.schema.field(column.name).type)
            if not accepts(column.type, expected):
                raise InputError(
                    f"{where}: {table.name}.{column.name} is {column.type}, expected {_EXPECTED[expected]}",
                    f"Write the column anew as {table.schema.field(column.name).type}, or as text that can be read so.",
                )
        elif table.extra:
            target = attribute_target(column.type)
            if target is None:
                raise InputError(
                    f"{where}: attribute {table.name}.{column.name} is {column.type}, expected integers or text",
                    "Drop the column, or write one value a user.",
                )
            if not pa.types.is_null(column.type):
                attributes[column.name] = target
    return attributes


def merge_attributes(shapes: Sequence[FileShape]) -> dict[str, Target]:
    """Attributes of a table by name: integer where every file that has one says so, else text."""
    merged: dict[str, Target] = {}
    for shape in shapes:
        for name, target in shape.attributes.items():
            merged[name] = target if merged.get(name, target) == target else "text"
    return dict(sorted(merged.items()))


def cut_pieces(table: str, key: str, shape: FileShape) -> list[Piece]:
    """Pieces of about PIECE_ROWS rows that cover the file."""
    pieces: list[Piece] = []
    room = 0
    for group, rows in enumerate(shape.group_rows):
        if rows > room or not pieces:
            pieces.append(Piece(table, key, ()))
            room = PIECE_ROWS
        pieces[-1] = Piece(table, key, (*pieces[-1].groups, group))
        room -= rows
    return pieces


def output_schema(table: LakeTable, attributes: Mapping[str, Target]) -> pa.Schema:
    """Columns that `read_piece` yields, all nullable: the table's, attribute_0 …, REASON and GIVEN.

    Attributes go by position because their names are anything: two may differ in case alone, which Spark ignores.
    """
    fields = [pa.field(f.name, f.type) for f in table.schema]
    fields += [pa.field(f"attribute_{i}", _ATTRIBUTE_TYPES[target]) for i, target in enumerate(attributes.values())]
    return pa.schema([*fields, pa.field(REASON, pa.string()), pa.field(GIVEN, pa.string())])


def read_piece(store: ObjectStore, piece: Piece, attributes: Mapping[str, Target]) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the columns of `output_schema`. Raises InputError for a file that cannot be read."""
    table = LAKE_TABLES[piece.table]
    wanted = {*table.schema.names, *attributes}
    with _readable(f"{store.uri}/{piece.key}"), pq.ParquetFile(store.open_local(piece.key)) as file:
        names = [name for name in file.schema_arrow.names if name in wanted]
        for batch in file.iter_batches(BATCH_ROWS, row_groups=piece.groups, columns=names, use_threads=False):
            yield normalise(batch, table, attributes)


def normalise(batch: pa.RecordBatch, table: LakeTable, attributes: Mapping[str, Target]) -> pa.RecordBatch:
    """A batch as written, in the columns of `output_schema`: absent ones null, faulty rows with their first reason."""
    schema = output_schema(table, attributes)
    columns: list[pa.Array] = []
    reasons: list[str] = []
    code = np.full(batch.num_rows, -1, np.int32)
    for name, field in zip([*table.schema.names, *attributes], schema, strict=False):
        if name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        converted = convert(batch.column(name), field.type)
        columns.append(converted.values)
        for faulty, reason in converted.faults:
            code[faulty & (code < 0)] = len(reasons)
            reasons.append(f"{name} {reason}")
    return pa.RecordBatch.from_arrays([*columns, *_faults(batch, code, reasons)], schema=schema)


def _faults(batch: pa.RecordBatch, code: Any, reasons: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """The REASON and GIVEN columns; code int32 [n] is an index into reasons, -1 for a good row."""
    blank = pa.nulls(batch.num_rows, pa.string())
    if not reasons:
        return blank, blank
    bad = code >= 0
    reason = pa.DictionaryArray.from_arrays(pa.array(code, mask=~bad), pa.array(reasons)).cast(pa.string())
    rows = _times_as_text(batch.filter(pa.array(bad))).to_pylist()
    given = pa.array([orjson.dumps(row, default=_as_text).decode() for row in rows], pa.string())
    return reason, pc.replace_with_mask(blank, pa.array(bad), given)


def _times_as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Times in UTC as text: Python has no datetime for those out of range, and does not know every time zone."""
    columns: list[pa.Array] = []
    for column in batch.columns:
        values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64()).cast(pa.timestamp(values.type.unit))
        columns.append(values.cast(pa.string()) if pa.types.is_temporal(values.type) else values)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{where}: not a readable Parquet file: {error}", "Write it anew, or take it out of the lake."
        ) from error
