"""What goes between those who score and the leaf processes: Arrow record batches there, scores back.

The columns of a model whose list the sender has go as a bare record batch, whose schema both sides compile from the
model.toml; the list's digest goes with it, so that a batch cut by another list is never read. In it all columns of one
type are one value, one after the other: a value costs as many bytes beside its numbers as any other, however many
numbers it has. Columns of a model whose list is not known go with their schema, all of them.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from infra.errors import NotFound, PymkError, UsageError
from infra.model_golden import to_arrow
from infra.model_routes import ModelRef
from infra.model_spec import InputSpec
from lookup_api.deadline import TooLate
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.protocol import LeafBusy, LeafFailed, ModelHangs, ModelLoading, TurnLate
from lookup_api.ranking.scorers import Array, Float32

SCORE, COLUMNS, HEALTH, METRICS = "score", "columns", "health", "metrics"
"""Actions of a leaf process."""
MAGIC = b"leaf\x01"
REQUEST = struct.Struct("<5sBHf16s?3x")
"""Magic and version, form, length of the model's name, milliseconds left, digest of the list, whether others go first;
Arrow's bytes follow the name, from the next multiple of ALIGNED."""
REPLY = struct.Struct("<5sBeIQ")
"""Magic and version, status, milliseconds that the model's own call took (0 where that is not told), rows, bytes of
columns that were of no use; then the scores, or why there are none."""
ALL, TRIMMED = 0, 1
ALIGNED = 64
END_BYTES = 8
MOST_LEFT_MS = 3_600_000.0
MOST_TOLD_MS = 65_504.0


class Status(IntEnum):
    """What became of a request."""

    OK = 0
    NOT_FOUND = 1
    LATE = 2
    LOADING = 3
    FAILED = 4
    USAGE = 5
    OTHER_LIST = 6
    LEAVING = 7
    LIST = 8
    TURN_LATE = 9
    BUSY = 10
    HANGS = 11


RAISED: Mapping[type[PymkError], Status] = {
    NotFound: Status.NOT_FOUND,
    ModelLoading: Status.LOADING,
    TurnLate: Status.TURN_LATE,
    TooLate: Status.LATE,
    UsageError: Status.USAGE,
    LeafBusy: Status.BUSY,
    ModelHangs: Status.HANGS,
    LeafFailed: Status.FAILED,
}
"""What a leaf raises, there and here; a class before its own."""


class WireError(Exception):
    """Bytes that are not what they should be."""


@dataclass(frozen=True)
class Asked:
    """A request as it came. body: Arrow's bytes. digest: of the list by which columns were cut, if they were. spare:
    scored only while nobody else is."""

    model: ModelRef
    left_s: float
    form: int
    digest: bytes
    body: pa.Buffer
    spare: bool


@dataclass(frozen=True)
class Reply:
    """scores: None unless the status is OK; why: then. ms: that the model's own call took."""

    status: int
    scores: Float32 | None
    why: str
    discarded: int
    ms: float


def schema_of(columns: ColumnList) -> pa.Schema:
    """Of a record batch of the list's columns: one row, a value for each type among them."""
    return pa.schema([pa.field(name, pa.list_(pa.from_numpy_dtype(np.dtype(name)))) for name in columns.widths])


def encode_trimmed(trimmed: Sequence[Array], schema: pa.Schema, lz4: bool) -> pa.Buffer:
    """A bare record batch of a list's columns, [n] or [n, width] each."""
    lists = [
        _packed([one for one in trimmed if one.dtype.name == name], schema.field(name).type) for name in schema.names
    ]
    batch = pa.RecordBatch.from_arrays(lists, schema=schema)
    if not lz4:
        return batch.serialize()
    written = _written(batch, lz4)  # as a batch alone cannot be compressed
    return written[schema.serialize().size : -END_BYTES]


def decode_trimmed(body: pa.Buffer, schema: pa.Schema, columns: ColumnList) -> dict[str, Array]:
    """The columns of each type one after the other, by type: [n * columns.widths]. Raises WireError."""
    try:
        batch = pa.ipc.read_record_batch(body, schema)
        batch.validate(full=True)
        if batch.num_rows != 1 or any(column.null_count for column in batch.columns):
            raise WireError(f"{batch.num_rows} rows, or nulls, in what is one row of all columns")
        packed = {name: _to_numpy(column.flatten()) for name, column in zip(schema.names, batch.columns, strict=True)}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise WireError(f"no record batch of the model's columns: {error}") from None
    rows = columns.rows_of(packed)
    for name, width in columns.widths.items():
        if len(packed[name]) != rows * width:
            raise WireError(f"{len(packed[name])} numbers of {name} are not {rows} rows of {width}")
    return packed


def encode_all(columns: Mapping[str, Array], lz4: bool) -> pa.Buffer:
    """All columns, with their schema. Raises UsageError for columns of different lengths, or of no known type."""
    try:
        arrays = [to_arrow(np.ascontiguousarray(column)) for column in columns.values()]
        return _written(pa.RecordBatch.from_arrays(arrays, names=list(columns)), lz4)
    except pa.ArrowException as error:
        raise UsageError(f"columns that cannot be sent: {error}") from None


def decode_all(body: pa.Buffer) -> dict[str, Array]:
    """Raises WireError."""
    try:
        with pa.ipc.open_stream(body) as stream:
            batch = stream.read_next_batch()
        return {name: _to_numpy(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    except (pa.ArrowException, OSError, ValueError, StopIteration) as error:
        raise WireError(f"no columns: {error}") from None


def encode_request(
    model: ModelRef, left_s: float, form: int, digest: bytes, body: pa.Buffer, spare: bool = False
) -> bytes:
    name = str(model).encode()
    left_ms = min(max(left_s * 1000, 0.0), MOST_LEFT_MS)
    head = REQUEST.pack(MAGIC, form, len(name), left_ms, digest, spare) + name
    return b"".join((head, bytes(-len(head) % ALIGNED), memoryview(body)))


def decode_request(data: pa.Buffer) -> Asked:
    """Raises WireError."""
    try:
        magic, form, size, left_ms, digest, spare = REQUEST.unpack(data[: REQUEST.size])
        if magic != MAGIC or form not in (ALL, TRIMMED) or not 0 <= left_ms <= MOST_LEFT_MS:
            raise WireError("no request of this version")
        end = REQUEST.size + size
        model = ModelRef.parse(data[REQUEST.size : end].to_pybytes().decode())
    except (struct.error, UnicodeDecodeError, UsageError) as error:
        raise WireError(f"no request: {error}") from None
    return Asked(model, left_ms / 1000, form, digest, data[end + -end % ALIGNED :], spare)


def encode_reply(
    status: Status, scores: Float32 | None = None, why: str | bytes = "", discarded: int = 0, ms: float = 0.0
) -> bytes:
    """why: what is told instead of scores."""
    told = why.encode() if isinstance(why, str) else why
    body = told if scores is None else scores.astype("<f4").tobytes()
    rows = 0 if scores is None else len(scores)
    return REPLY.pack(MAGIC, status, min(ms, MOST_TOLD_MS), rows, discarded) + body


def decode_reply(data: bytes) -> Reply:
    """Raises WireError."""
    try:
        magic, status, ms, rows, discarded = REPLY.unpack_from(data)
        if magic != MAGIC:
            raise WireError("no reply of this version")
        if status != Status.OK:
            return Reply(status, None, data[REPLY.size :].decode(), discarded, ms)
    except (struct.error, UnicodeDecodeError) as error:
        raise WireError(f"no reply: {error}") from None
    if len(data) != REPLY.size + 4 * rows:
        raise WireError(f"{len(data) - REPLY.size} bytes of {rows} scores")
    return Reply(status, np.frombuffer(data, "<f4", rows, REPLY.size).astype(np.float32), "", discarded, ms)


def encode_list(columns: ColumnList) -> bytes:
    values = {"model": columns.model, "inputs": [one.model_dump(mode="json") for one in columns.inputs]}
    return json.dumps(values | {"digest": columns.digest.hex()}).encode()


def decode_list(data: bytes, model: ModelRef) -> ColumnList:
    """Raises WireError for what is no list of this model's columns, or not the one that the leaf says it is."""
    try:
        values = json.loads(data)
        found = ColumnList(values["model"], tuple(InputSpec.model_validate(one) for one in values["inputs"]))
        told = values["digest"]
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise WireError(f"no list of columns: {error}") from None
    if found.model != model.name or not found.inputs or found.digest.hex() != told:
        raise WireError("a list of columns that is not the one that it says it is")
    return found


def _packed(columns: Sequence[Array], kind: pa.ListType) -> pa.Array:
    """One value, of all the columns' numbers. Joined as bytes: numpy would let other threads run after each column."""
    numbers = b"".join([np.ascontiguousarray(one).data for one in columns])
    count = sum(one.size for one in columns)
    values = pa.Array.from_buffers(kind.value_type, count, [None, pa.py_buffer(numbers)])
    return pa.ListArray.from_arrays(np.array([0, count], np.int32), values)


def _written(batch: pa.RecordBatch, lz4: bool) -> pa.Buffer:
    """Schema, batch, and END_BYTES that say that there is no more."""
    sink = pa.BufferOutputStream()
    how = pa.ipc.IpcWriteOptions(compression="lz4" if lz4 else None)
    with pa.ipc.new_stream(sink, batch.schema, options=how) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _to_numpy(column: pa.Array) -> Array:
    if column.null_count:
        raise WireError("a column with nulls")
    if pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(-1, column.type.list_size)
    return np.asarray(column.to_numpy(zero_copy_only=False))
