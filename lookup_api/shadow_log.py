"""What shadows scored, on its way into the store as Parquet files. Loads Arrow: only for those who have shadows.

A file is built in memory, row group by row group, and stored once it is old or large enough. One thread at a time.
"""

import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import PymkError
from infra.schemas import SHADOWS
from infra.shadow_files import DROPPED, key_of
from infra.store import ObjectStore
from lookup_api.ranking.scorers import Array, Float32

log = logging.getLogger(__name__)

GROUP_BYTES, FILE_BYTES = 4 << 20, 32 << 20
"""Of scores and inputs as they come, after which a row group ends, and a file."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """One model's scores of one request. version: of the release's ranker the release's id. ms: of scoring. scores
    float32 [n]; None where it failed. inputs: [n] each, by name."""

    model: str
    version: str
    variant: str
    outcome: str
    ms: float
    scores: Float32 | None
    inputs: Mapping[str, Array] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        values = 0 if self.scores is None else len(self.scores)
        return 4 * (values + sum(len(one) for one in self.inputs.values()))


@dataclass(slots=True)
class _File:
    """A surface's file as it grows. rows: of the row group that is not written yet, each with the number of its request
    and when it was answered, microseconds since 1970."""

    began_s: float
    sink: pa.BufferOutputStream
    writer: pq.ParquetWriter
    rows: list[tuple[int, int, Row]] = field(default_factory=list)
    waiting_bytes: int = 0
    bytes: int = 0
    requests: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=dict)


class ShadowLog:
    """The files of one worker."""

    def __init__(
        self,
        store: Callable[[], ObjectStore],
        file_s: float,
        most_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """store: opens it, writable. most_bytes: of files in an hour. clock: seconds since 1970."""
        self._open_store = store
        self._store: ObjectStore | None = None
        self._file_s = file_s
        self._most_bytes = most_bytes
        self._clock = clock
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._files: dict[str, _File] = {}
        self._made = 0
        self._hour, self._spent = 0, 0
        self.stored: Callable[[int, int], None] = lambda requests, size: None
        self.lost: Callable[[int], None] = lambda requests: None

    @property
    def has_room(self) -> bool:
        """Whether more may be stored in this hour."""
        self._turn_hour()
        return self._spent < self._most_bytes

    def add(self, surface: str, at_us: int, rows: Sequence[Row]) -> None:
        """The rows of one request, none of which ever goes into another file than the rest."""
        file = self._file(surface)
        file.rows += [(file.requests, at_us, row) for row in rows]
        file.requests += 1
        file.waiting_bytes += sum(row.size_bytes for row in rows)
        if file.waiting_bytes >= GROUP_BYTES:
            self._end_group(surface, file)
        if file.bytes >= FILE_BYTES:
            self._store_file(surface)

    def dropped(self, surface: str, model: str, why: str, number: int) -> None:
        """Notes requests that a model did not score."""
        self._file(surface).dropped.setdefault(model, Counter())[why] += number

    def roll(self, *, all_of_them: bool = False) -> None:
        """Stores the files that are old enough."""
        now = self._clock()
        for surface, file in list(self._files.items()):
            if all_of_them or not 0 <= now - file.began_s < self._file_s:
                self._store_file(surface)

    def _file(self, surface: str) -> _File:
        found = self._files.get(surface)
        if found is None:
            sink = pa.BufferOutputStream()
            writer = pq.ParquetWriter(sink, SHADOWS, compression="zstd", use_dictionary=_NAMES)
            found = self._files[surface] = _File(self._clock(), sink, writer)
        return found

    def _end_group(self, surface: str, file: _File) -> None:
        if file.rows:
            file.writer.write_table(_table(surface, file.rows))
            file.bytes += file.waiting_bytes
            file.rows, file.waiting_bytes = [], 0

    def _store_file(self, surface: str) -> None:
        """Where that fails the rows are lost, and counted: nothing waits for a store that is away."""
        file = self._files.pop(surface)
        self._end_group(surface, file)
        file.writer.add_key_value_metadata({DROPPED: orjson.dumps(file.dropped)})
        file.writer.close()
        data = file.sink.getvalue()
        self._made += 1
        self._turn_hour()
        try:
            self._store = self._store or self._open_store()
            at = datetime.fromtimestamp(self._clock(), UTC)
            self._store.put(key_of(surface, at, f"{self._name}-{self._made}"), data.to_pybytes())
        except (PymkError, OSError) as error:
            self._store = None
            self.lost(file.requests)
            log.warning("what shadows scored for %d requests on %s is lost: %s", file.requests, surface, error)
            return
        self._spent += data.size
        self.stored(file.requests, data.size)

    def _turn_hour(self) -> None:
        hour = int(self._clock() // HOUR_S)
        if hour != self._hour:
            self._hour, self._spent = hour, 0


_NAMES = ["surface", "model", "version", "variant", "outcome"]
"""Columns of few values."""


def _table(surface: str, rows: Sequence[tuple[int, int, Row]]) -> pa.Table:
    """Rows as infra.schemas.SHADOWS. Numbers are joined by numpy, so that Python makes no object of each."""
    of = [row for _, _, row in rows]
    columns = {
        "request": pa.array([number for number, _, _ in rows], pa.int32()),
        "at": pa.array([at for _, at, _ in rows], pa.int64()).cast(SHADOWS.field("at").type),
        "surface": pa.array([surface] * len(rows), pa.string()),
        **{name: pa.array([getattr(row, name) for row in of], pa.string()) for name in _NAMES[1:]},
        "ms": pa.array([row.ms for row in of], pa.float32()),
        "scores": _scores([row.scores for row in of]),
        "inputs": _inputs([row.inputs for row in of]),
    }
    return pa.table(columns, schema=SHADOWS)


def _scores(each: Sequence[Float32 | None]) -> pa.ListArray:
    found = [np.zeros(0, np.float32) if one is None else one for one in each]
    return pa.ListArray.from_arrays(
        _ends(found), pa.array(_joined(found)), mask=pa.array([one is None for one in each])
    )


def _inputs(each: Sequence[Mapping[str, Array]]) -> pa.MapArray:
    columns = [column for one in each for column in one.values()]
    values = pa.ListArray.from_arrays(_ends(columns), pa.array(_joined(columns)))
    names = pa.array([name for one in each for name in one], pa.string())
    return pa.MapArray.from_arrays(_ends(each), names, values)


def _ends(parts: Sequence[Array] | Sequence[Mapping[str, Array]]) -> pa.Array:
    """Where each of them begins, and where the last one ends."""
    return pa.array(np.cumsum([0, *(len(one) for one in parts)]), pa.int32())


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> Float32:
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32)
