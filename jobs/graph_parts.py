"""The graph's arrays from what Spark hands back: coded attributes, entities, rows of entries, the split of users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.errors import InputError
from infra.graph import LEARN, NO_DAY, REPORT, VALIDATE, Csr, Int32, Int64
from infra.settings import GraphSettings
from jobs.past_view import SPLIT_SALT
from jobs.seeded import seeded_uniform
from jobs.transforms.pairs import Blocks

ATTRIBUTE_VALUES = pa.schema([("attribute", pa.string()), ("code", pa.int32()), ("value", pa.string())])
ENTITIES = pa.schema([("entity", pa.int32()), ("kind", pa.string()), ("entity_id", pa.string())])

MAX_KINDS = int(np.iinfo(np.int16).max) + 1
"""Kinds of affiliations that an index of int16 reaches."""


def rows_of_ids(ids: Int64, user_ids: Int64) -> Int64:
    """The row of each id in the ascending `ids`, int64 in the shape of user_ids, -1 where it is not there."""
    if len(ids) == 0:
        return np.full(user_ids.shape, -1)
    at = np.minimum(np.searchsorted(ids, user_ids), len(ids) - 1)
    return np.where(ids[at] == user_ids, at, -1)


def split_users(ids: Int64, settings: GraphSettings, seed: int) -> npt.NDArray[np.uint8]:
    """LEARN, VALIDATE or REPORT for each user, by a seeded hash of the id; the shares are of all users."""
    drawn = seeded_uniform(seed + SPLIT_SALT, ids)
    rest = np.where(drawn < settings.report_share + settings.validate_share, VALIDATE, LEARN)
    return np.where(drawn < settings.report_share, REPORT, rest).astype(np.uint8)


def csr_of_blocks(merged: pa.Table, layer: int, blocks: Blocks, value: str | None) -> Csr:
    """One layer of jobs.transforms.pairs.block_pairs as rows 0 .. users-1; value: its column of values, or none."""
    own = merged.filter(pc.equal(merged["layer"], layer)).sort_by("block")
    degrees = np.zeros(blocks.count * blocks.size, np.int64)
    for block, packed in zip(own["block"].to_pylist(), own["degrees"], strict=True):
        degrees[block * blocks.size : (block + 1) * blocks.size] = np.frombuffer(packed.as_buffer(), np.int32)
    indptr = np.zeros(blocks.users + 1, np.int64)
    np.cumsum(degrees[: blocks.users], out=indptr[1:])
    return Csr(indptr, _joined(own["columns"]), _joined(own[value]) if value else None)


def _joined(packed: pa.ChunkedArray) -> Int32:
    parts = [np.frombuffer(value.as_buffer(), np.int32) for value in packed]
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


@dataclass(frozen=True)
class Attributes:
    """codes: int32 [A, N], -1 where missing. values: ATTRIBUTE_VALUES, by attribute and code."""

    names: tuple[str, ...]
    codes: Int32
    cardinalities: tuple[int, ...]
    values: pa.Table
    joined_day: Int32

    @classmethod
    def none(cls, users: int) -> "Attributes":
        codes, joined_day = np.empty((0, users), np.int32), np.full(users, NO_DAY, np.int32)
        return cls((), codes, (), ATTRIBUTE_VALUES.empty_table(), joined_day)


def code_attributes(profiles: pa.Table, names: Sequence[str], ids: Int64) -> Attributes:
    """Codes the attributes of the users by the order of their values: integers by size, text by code point.

    profiles: one row a user: user_id, joined_at, attribute_0 ….
    """
    row = rows_of_ids(ids, profiles["user_id"].to_numpy())
    kept = row >= 0
    row = row[kept]
    profiles = profiles.filter(pa.array(kept))
    codes = np.full((len(names), len(ids)), -1, np.int32)
    values = []
    for i, name in enumerate(names):
        own, found = code_values(profiles[f"attribute_{i}"])
        codes[i, row] = own
        columns = [pa.repeat(name, len(found)), np.arange(len(found), dtype=np.int32), found.cast(pa.string())]
        values.append(pa.table(columns, schema=ATTRIBUTE_VALUES))
    joined_day = np.full(len(ids), NO_DAY, np.int32)
    joined_day[row] = _days(profiles["joined_at"])
    table = pa.concat_tables(values) if values else ATTRIBUTE_VALUES.empty_table()
    return Attributes(tuple(names), codes, tuple(len(v) for v in values), table, joined_day)


def code_values(column: pa.ChunkedArray) -> tuple[Int32, pa.Array]:
    """Codes int32 [n] (-1: null) into the distinct values, which ascend."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    rank[-1] = -1
    return rank[encoded.indices.fill_null(-1).to_numpy()], encoded.dictionary.take(pa.array(order))


def _days(times: pa.ChunkedArray) -> Int32:
    micros = times.cast(pa.int64())
    days = np.floor_divide(micros.fill_null(0).to_numpy(), 86_400_000_000)
    return np.where(pc.is_null(micros).to_numpy(), NO_DAY, days).astype(np.int32)


@dataclass(frozen=True)
class Affiliations:
    """kinds: sorted. entity_kind: int16 [E]. entities: ENTITIES, by kind and entity_id. past, now: N rows."""

    kinds: tuple[str, ...]
    entity_kind: npt.NDArray[np.int16]
    entities: pa.Table
    past: Csr
    now: Csr

    @classmethod
    def none(cls, users: int) -> "Affiliations":
        empty = Csr.empty(users, np.float32)
        return cls((), np.empty(0, np.int16), ENTITIES.empty_table(), empty, empty)


def code_affiliations(seen: pa.Table, ids: Int64) -> Affiliations:
    """Codes the entities by kind and entity_id; seen: see jobs.transforms.affiliations.affiliation_times.

    Raises InputError for more kinds than entity_kind can tell apart.
    """
    row = rows_of_ids(ids, seen["user_id"].to_numpy())
    seen, row = seen.filter(pa.array(row >= 0)), row[row >= 0]
    kind, kinds = code_values(seen["kind"])
    if len(kinds) > MAX_KINDS:
        raise InputError(
            f"table affiliations: {len(kinds):,} kinds, at most {MAX_KINDS:,} can be told apart",
            "A kind is a sort of thing, such as school or company; which one it is belongs in entity_id.",
        )
    text, texts = code_values(seen["entity_id"])
    found, entity = np.unique(kind.astype(np.int64) * max(len(texts), 1) + text, return_inverse=True)
    entity_kind = found // max(len(texts), 1)
    columns: Mapping[str, Any] = {
        "entity": np.arange(len(found), dtype=np.int32),
        "kind": kinds.take(pa.array(entity_kind)),
        "entity_id": texts.take(pa.array(found % max(len(texts), 1))),
    }
    now = Csr.from_pairs(len(ids), row, entity, seen["times"].to_numpy().astype(np.float32))
    past_times = seen["past_times"].to_numpy()
    kept = past_times > 0
    past = Csr.from_pairs(len(ids), row[kept], entity[kept], past_times[kept].astype(np.float32))
    return Affiliations(
        tuple(kinds.to_pylist()), entity_kind.astype(np.int16), pa.table(columns, schema=ENTITIES), past, now
    )
