"""CSV files into the lake: each table of a folder becomes one Parquet file, block by block.

A value that does not fit its column must reach the quarantine of build_graph with its row, so it is never dropped here:
a column with such a value is written as text, and a line with too few or too many fields becomes a row whose user_id is
the whole line.
"""

import csv
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from infra.columns import convert
from infra.errors import InputError, UsageError
from infra.schemas import CONNECTIONS, LAKE_TABLES, LakeTable

BLOCK_BYTES = 8 << 20
HEADER_BYTES = 1 << 20
ANY_BYTES = "latin-1"
"""An encoding in which every byte is a character, so that a line which is not UTF-8 can be read and kept as it is."""
_NAME = re.compile(r"(?P<table>\w+)\.csv(\.gz)?")
_ACCEPTED = ", ".join(f"{name}.csv" for name in LAKE_TABLES)


class Form(IntEnum):
    """How a column is written; each form holds what the one before could not."""

    TYPED = 0
    TEXT = 1
    BYTES = 2


@dataclass(frozen=True)
class Source:
    """A CSV file of a table. columns: the names in its header, in order. bare: there is nothing but a header."""

    table: LakeTable
    path: Path
    columns: tuple[str, ...]
    bare: bool = False

    def kind(self, column: str) -> pa.DataType:
        """The type a column should have; one that the table does not know is tried as an integer."""
        known = column in self.table.schema.names
        return self.table.schema.field(column).type if known else pa.int64()


def _unknown_columns(source: Source) -> list[str]:
    return [] if source.table.extra else [c for c in source.columns if c not in source.table.schema.names]


def import_folder(folder: Path, write_file: Callable[[str, Path], None]) -> dict[str, Any]:
    """Imports the CSV files named as lake tables; `write_file(key, local_path)` puts a file into the lake.

    Returns {"tables": {name: rows}, "ignored": names of other files, "unknown_columns": {table: columns that it does
    not have and nothing reads}, "kept_as_text": {table: columns that hold a value of the wrong type}}. Nothing is
    written unless every table could be read; what becomes of tables that are there is the affair of `write_file`.
    Raises UsageError where the folder is missing, InputError where it has no connections or a file is no CSV.
    """
    sources, ignored = _find(folder)
    rows: dict[str, int] = {}
    untyped: dict[str, list[str]] = {}
    with TemporaryDirectory(prefix="pymk-import-") as temporary:
        made = {source.table.name: Path(temporary) / f"{source.table.name}.parquet" for source in sources}
        for source in sources:
            name = source.table.name
            rows[name], forms = _convert(source, made[name])
            untyped[name] = [c for c in source.columns if forms[c] > Form.TYPED and c in source.table.schema.names]
        for name, path in made.items():
            write_file(f"{name}/part-00000.parquet", path)
    return {
        "tables": rows,
        "ignored": ignored,
        "unknown_columns": {source.table.name: unknown for source in sources if (unknown := _unknown_columns(source))},
        "kept_as_text": {name: found for name, found in untyped.items() if found},
    }


def _find(folder: Path) -> tuple[list[Source], list[str]]:
    """The tables of the folder, and the names of everything else in it."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder", "Give the folder that holds connections.csv or connections.csv.gz."
        )
    found: dict[str, Path] = {}
    ignored: list[str] = []
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match or match["table"] not in LAKE_TABLES or not path.is_file():
            ignored.append(path.name)
        elif match["table"] in found:
            both = f"{found[match['table']].name} and {path.name}"
            raise InputError(f"{folder}: both {both} are there", "Keep one file a table.")
        else:
            found[match["table"]] = path
    if CONNECTIONS.name not in found:
        names = ", ".join(ignored + [path.name for path in found.values()]) or "nothing"
        fix = f"Name the files as the lake's tables ({_ACCEPTED}), or the same with .gz."
        raise InputError(f"{folder}: no connections.csv or connections.csv.gz, found {names}", fix)
    return [_open_source(path, LAKE_TABLES[name]) for name, path in found.items()], ignored


def _open_source(path: Path, table: LakeTable) -> Source:
    line, ended = _first_line(path)
    return Source(table, path, _header(path, table, line), bare=not ended)


def _header(path: Path, table: LakeTable, line: str) -> tuple[str, ...]:
    """Column names of the first line; one without a name is called by its position."""
    try:
        fields = next(csv.reader([line]), [])
    except csv.Error as error:
        fix = "The first line must be short names of columns, separated by commas."
        raise InputError(f"{path}: the header {line[:80]!r} cannot be read: {error}", fix) from None
    names = tuple(name.strip() or f"column_{i}" for i, name in enumerate(fields, 1))
    missing = [name for name in table.required if name not in names]
    if missing:
        fix = f"The first line must name the columns {', '.join(table.required)}, separated by commas."
        raise InputError(f"{path}: no column {', '.join(missing)} in the header {line.strip()[:200]!r}", fix)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} is there more than once", "Rename or drop one of them.")
    return names


def _first_line(path: Path) -> tuple[str, bool]:
    """The text before the first line end (LF, CR LF or CR, as the rows may have), and whether there is one."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(HEADER_BYTES)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}", "Write the file anew.") from None
    if not start:
        raise InputError(f"{path}: is empty", "A table without rows still has a header line; or remove the file.")
    line, *rest = re.split(rb"[\r\n]", start, maxsplit=1)
    if not rest and len(start) == HEADER_BYTES:
        fix = "The first line must name the columns, separated by commas; save the table as text with line ends."
        raise InputError(f"{path}: the first line is longer than {HEADER_BYTES:,} bytes", fix)
    return line.decode("utf-8-sig", "replace"), bool(rest)


def _convert(source: Source, target: Path) -> tuple[int, dict[str, Form]]:
    """Writes the Parquet file, over again with wider forms where values did not fit. Rows and forms."""
    forms = dict.fromkeys(source.columns, Form.TYPED)
    while True:
        rows, misfits = _write(source, forms, target)
        if not misfits:
            return rows, forms
        forms |= {column: Form(forms[column] + 1) for column in misfits}


def _write(source: Source, forms: dict[str, Form], target: Path) -> tuple[int, set[str]]:
    """One pass over the file. Columns whose values do not fit their form are returned, and the file is then void."""
    rows, misfits = 0, set[str]()
    schema = pa.schema([(c, _written_kind(source, c, forms[c])) for c in source.columns])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for block in _blocks(source):
            rows += block.num_rows
            columns = {c: _fit(block.column(c), source, c, forms[c]) for c in source.columns}
            misfits |= {c for c, values in columns.items() if values is None}
            if not misfits:
                writer.write_batch(pa.record_batch([columns[c] for c in source.columns], schema=schema))
    return rows, misfits


def _written_kind(source: Source, column: str, form: Form) -> pa.DataType:
    return source.kind(column) if form == Form.TYPED else pa.string() if form == Form.TEXT else pa.binary()


def _fit(values: pa.Array, source: Source, column: str, form: Form) -> pa.Array | None:
    """Binary values in the form's type, or None where one of them cannot be held."""
    if form == Form.BYTES:
        return values
    if form == Form.TYPED:
        converted = convert(values, source.kind(column))
        if converted.faults:
            return None
        known = column in source.table.schema.names
        return converted.values if known or _spelt_alike(values, converted.values) else None
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return None


def _spelt_alike(text: pa.Array, numbers: pa.Array) -> bool:
    """Whether every number is written as in the file: a code such as 007 is text."""
    return bool(pc.all(pc.equal(numbers.cast(pa.string()).cast(pa.binary()), text), min_count=0).as_py())


def _blocks(source: Source) -> Iterator[pa.RecordBatch]:
    """Blocks of binary columns; empty fields are null. Lines with a wrong number of fields follow their block."""
    if source.bare:  # pyarrow refuses a file without a line end
        return
    odd: list[bytes] = []

    def keep(row: pyarrow.csv.InvalidRow) -> str:
        odd.append(row.text.encode(ANY_BYTES).decode("utf-8", "backslashreplace").encode())
        return "skip"

    try:
        for block in _open_csv(source, keep):
            yield pa.record_batch([_as_bytes(block.column(c)) for c in source.columns], names=list(source.columns))
            if odd:
                yield _odd_rows(odd, source)
                odd.clear()
    except (pa.ArrowInvalid, OSError) as error:
        fix = "Save the table as comma-separated UTF-8 text with one header line."
        raise InputError(f"{source.path}: not a readable CSV file: {error}", fix) from error
    if odd:
        yield _odd_rows(odd, source)


def _open_csv(source: Source, keep: Callable[[Any], str]) -> pyarrow.csv.CSVStreamingReader:
    return pyarrow.csv.open_csv(
        source.path,
        read_options=pyarrow.csv.ReadOptions(
            column_names=list(source.columns),
            skip_rows=1,
            block_size=BLOCK_BYTES,
            use_threads=False,
            encoding=ANY_BYTES,
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(source.columns, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    )


def _as_bytes(values: pa.Array) -> pa.Array:
    """The bytes that ANY_BYTES turned into text, without a step a value."""
    if pc.all(pc.string_is_ascii(values), min_count=0).as_py():
        return values.cast(pa.binary())
    _, starts, text = values.buffers()
    start, *_, end = np.frombuffer(starts, np.int32)[values.offset : values.offset + len(values) + 1]
    data = text[start:end].to_pybytes().decode().encode(ANY_BYTES)
    ends = np.cumsum(pc.utf8_length(values).fill_null(0).to_numpy(zero_copy_only=False))
    valid = pa.array(pc.is_valid(values).to_numpy(zero_copy_only=False))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    parts = [valid.buffers()[1], pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.BinaryArray.from_buffers(pa.binary(), len(values), parts)


def _odd_rows(lines: list[bytes], source: Source) -> pa.RecordBatch:
    """One row a line, the whole line as its user_id."""
    blank = pa.nulls(len(lines), pa.binary())
    whole = pa.array(lines, pa.binary())
    return pa.record_batch([whole if c == "user_id" else blank for c in source.columns], names=list(source.columns))
