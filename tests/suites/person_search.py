"""Finds an id wherever it may be: in every column, array, table and text of a folder, decoded."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.blobs import (
    BARS,
    CANDIDATES,
    NEIGHBOURS,
    PAGED,
    RANKING,
    decode_bars,
    decode_candidates,
    decode_neighbours,
    decode_ranking,
)

ORDERS: tuple[Literal["big", "little"], ...] = ("big", "little")
TEXTS = {".json", ".html", ".txt", ".csv", ".log", ""}


def places_of(folder: Path, person: int) -> list[str]:
    """Files below a folder, with the column or table, that name a person."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found += [f"{path.relative_to(folder)}: {where}" for where in _in_file(path, person)]
    return found


def _in_file(path: Path, person: int) -> Iterator[str]:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield from (name for name in table.column_names if in_column(table[name], person))
    elif path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8 and bool((array == person).any()):
            yield "array"
    elif path.suffix in (".lmdb", ".mdb"):
        yield from _in_lmdb(path, person)
    elif path.suffix in TEXTS and in_text(path.read_text(errors="replace"), person):
        yield "text"
    yield from ("name" for _ in [0] if in_text(path.name, person))


def in_column(column: pa.ChunkedArray, person: int) -> bool:
    """Whether a column, at whatever depth, holds the person as a number or within a text."""
    kind = column.type
    if pa.types.is_struct(kind):
        return any(in_column(pc.struct_field(column, [i]), person) for i in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return in_column(pc.list_flatten(column), person)
    if pa.types.is_int64(kind):
        return bool(pc.any(pc.equal(column, person)).as_py())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return any(in_text(text, person) for text in column.to_pylist() if text)
    return False


def in_text(text: str, person: int) -> bool:
    return re.search(rf"(?<![0-9-]){re.escape(str(person))}(?![0-9])", text) is not None


def _in_lmdb(path: Path, person: int) -> Iterator[str]:
    forms = (
        (person + 2**63).to_bytes(8, "big"),
        *(person.to_bytes(8, order, signed=True) for order in ORDERS),
        str(person).encode(),
    )
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=30) as env:
        with env.begin() as txn:
            names = [bytes(name) for name, _ in txn.cursor()]
        for name in names:
            table = env.open_db(name, create=False)
            with env.begin(db=table) as txn:
                if any(any(form in key or form in value for form in forms) or person in people_in(value)
                       for key, value in txn.cursor()):  # fmt: skip
                    yield name.decode()


def people_in(blob: bytes) -> set[int]:
    """Ids that a serving blob holds; nobody where it is none."""
    decoders = {
        RANKING: decode_ranking, PAGED: decode_ranking, CANDIDATES: decode_candidates,
        NEIGHBOURS: decode_neighbours, BARS: decode_bars,
    }  # fmt: skip
    decode = decoders.get(blob[1]) if len(blob) > 1 else None
    if decode is None:
        return set()
    try:
        found = decode(blob)
    except Exception:  # bytes of another kind
        return set()
    ids = getattr(found, "ids", found if blob[1] == BARS else ())
    return set(ids() if callable(ids) else ids)
