"""Encodes the serving blobs of a block of users at once: arrays in, one buffer and its cuts out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from infra.blobs import (
    BARS_LAYOUT,
    BLOB_VERSION,
    CANDIDATES_LAYOUT,
    NEIGHBOURS_LAYOUT,
    RANKING_LAYOUT,
    RECORDS,
    SIZES,
    USER_LAYOUT,
    Layout,
)

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Ragged:
    """Values of several users, one after the other: user u has `values[ends[u - 1] : ends[u]]`."""

    values: npt.NDArray[Any]
    ends: Int64

    @property
    def starts(self) -> Int64:
        return np.concatenate([np.zeros(min(1, len(self.ends)), np.int64), self.ends[:-1]])

    @property
    def lengths(self) -> Int64:
        return self.ends - self.starts

    @classmethod
    def of_lengths(cls, values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> "Ragged":
        return cls(values, np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def of_matrix(cls, values: npt.NDArray[Any]) -> "Ragged":
        """[users, k] or [users]: k values a user."""
        rows = values.reshape(len(values), -1) if len(values) else values.reshape(0, 1)
        return cls(np.ascontiguousarray(rows).reshape(-1), np.arange(1, len(rows) + 1) * np.int64(rows.shape[1]))


@dataclass(frozen=True)
class Section:
    """One section of every user's blob. choices: type code -> the same values in that type; choice: index of each
    user's type code."""

    choices: Sequence[tuple[str, Ragged]]
    choice: npt.NDArray[np.intp]

    @classmethod
    def fixed(cls, code: str, ragged: Ragged) -> "Section":
        kept = ragged.values.astype(_dtype(code), copy=False)
        return cls([(code, Ragged(kept, ragged.ends))], np.zeros(len(ragged.ends), np.intp))

    @classmethod
    def narrowest(cls, codes: str, ragged: Ragged) -> "Section":
        """Unsigned values in the first of `codes` that holds all of a user's."""
        largest = _largest(ragged.values.astype(np.uint64, copy=False), ragged.ends)
        limits = np.array([np.iinfo(_dtype(code)).max for code in codes[:-1]], np.uint64)
        choices = [(code, Ragged(ragged.values.astype(_dtype(code)), ragged.ends)) for code in codes]
        return cls(choices, np.searchsorted(limits, largest))


def _dtype(code: str) -> np.dtype[Any]:
    return np.dtype("u1" if code in "Bs" else f"<{code}")


@dataclass(frozen=True)
class Blobs:
    """Encoded blobs: uint8 `data`, blob u is `data[ends[u - 1] : ends[u]]`."""

    data: Bytes
    ends: Int64

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> Int64:
        return np.concatenate([np.zeros(min(1, len(self.ends)), np.int64), self.ends[:-1]])

    def one(self, user: int) -> bytes:
        return self.data[self.starts[user] : self.ends[user]].tobytes()


def encode(layout: Layout, sections: Sequence[Section]) -> Blobs:
    """Blobs of all users of a block; `sections` in the layout's order."""
    users = len(sections[0].choice)
    lengths = np.stack([_section_bytes(section) for section in sections])  # [sections, users]
    sizes = lengths.sum(axis=0) + layout.head.size
    ends = np.cumsum(sizes, dtype=np.int64)
    data = np.zeros(int(ends[-1]) if users else 0, np.uint8)
    at = ends - sizes
    _scatter_rows(data, at, _heads(layout, sections, lengths))
    at = at + layout.head.size
    for section, length in zip(sections, lengths, strict=True):
        for number, (code, ragged) in enumerate(section.choices):
            chosen = np.where(section.choice == number, length, 0)
            _scatter(data, at, ragged.values.view(np.uint8), ragged.starts * SIZES[code], chosen)
        at = at + length
    return Blobs(data, ends)


def _section_bytes(section: Section) -> Int64:
    sizes = np.array([SIZES[code] for code, _ in section.choices], np.int64)
    return section.choices[0][1].lengths * sizes[section.choice]


def _heads(layout: Layout, sections: Sequence[Section], lengths: Int64) -> Bytes:
    """uint8 [users, bytes of the head]."""
    fields = [("version", "u1"), ("kind", "u1")]
    for name in layout.sections:
        fields += [(f"{name}:code", "u1"), (f"{name}:bytes", "<u4")]
    heads = np.zeros(lengths.shape[1], np.dtype(fields))
    heads["version"], heads["kind"] = BLOB_VERSION, layout.kind
    for name, section, length in zip(layout.sections, sections, lengths, strict=True):
        heads[f"{name}:code"] = np.array([ord(code) for code, _ in section.choices], np.uint8)[section.choice]
        heads[f"{name}:bytes"] = length
    return heads.view(np.uint8).reshape(len(heads), layout.head.size)


@numba.njit(cache=True, nogil=True)
def _scatter(data: Any, at: Any, source: Any, start: Any, length: Any) -> None:
    for user in range(len(at)):
        for byte in range(length[user]):
            data[at[user] + byte] = source[start[user] + byte]


@numba.njit(cache=True, nogil=True)
def _scatter_rows(data: Any, at: Any, rows: Any) -> None:
    for user in range(len(at)):
        for byte in range(rows.shape[1]):
            data[at[user] + byte] = rows[user, byte]


@numba.njit(cache=True, nogil=True)
def _largest(values: Any, ends: Any) -> Any:
    found = np.zeros(len(ends), np.uint64)
    start = 0
    for user in range(len(ends)):
        for at in range(start, ends[user]):
            found[user] = max(found[user], values[at])
        start = ends[user]
    return found


@numba.njit(cache=True, nogil=True)
def _smallest_signed(values: Any, ends: Any) -> Any:
    found = np.zeros(len(ends), np.int64)
    start = 0
    for user in range(len(ends)):
        for at in range(start, ends[user]):
            if at == start or values[at] < found[user]:
                found[user] = values[at]
        start = ends[user]
    return found


def _id_sections(ids: Ragged) -> tuple[Section, Section]:
    """Ids as distances from a user's smallest: four bytes each unless they are further apart."""
    values = np.ascontiguousarray(ids.values, np.int64)
    base = _smallest_signed(values, ids.ends)
    offsets = values.view(np.uint64) - np.repeat(base, ids.lengths).view(np.uint64)
    return Section.fixed("q", Ragged.of_matrix(base)), Section.narrowest("IQ", Ragged(offsets, ids.ends))


@dataclass(frozen=True)
class RankingColumns:
    """Ranked lists of a block of users, each best first. Ragged ends count a user's elements.

    ids int64, scores float32, shape, count: one an item. group_counts: groups of an item that another item of the same
    list has too; group_codes: local to the list, 0 .. groups - 1; group_rules: rule of each local group.
    shape_lengths: reasons of each of a list's shapes; shapes: their places in the list's dictionary; count: of an
    item's first reason, 0 for none. dictionary: a list's JSON objects as text, one a line.
    """

    ids: Ragged
    scores: Ragged
    shape: Ragged
    count: Ragged
    group_counts: Ragged
    group_codes: Ragged
    group_rules: Ragged
    shape_lengths: Ragged
    shapes: Ragged
    dictionary: Ragged


def encode_rankings(columns: RankingColumns) -> Blobs:
    base, items = _item_sections(columns)
    return encode(
        RANKING_LAYOUT,
        [
            base,
            items,
            Section.fixed("B", columns.group_counts),
            Section.narrowest("BH", columns.group_codes),
            Section.fixed("B", columns.group_rules),
            Section.fixed("B", columns.shape_lengths),
            Section.narrowest("BH", columns.shapes),
            Section.fixed("s", columns.dictionary),
        ],
    )


def _item_sections(columns: RankingColumns) -> tuple[Section, Section]:
    """Items as records, in the narrowest form that holds a user's ids, shapes and counts."""
    base, ids = _id_sections(columns.ids)
    ends = columns.ids.ends
    offsets = ids.choices[-1][1].values
    values = (offsets, columns.scores.values, columns.shape.values, columns.count.values)
    wide = (_largest(values[2].astype(np.uint64), ends) > 0xFF) | (_largest(values[3].astype(np.uint64), ends) > 0xFFFF)
    choice = 2 * ids.choice + wide
    choices = []
    for number, (code, record) in enumerate(RECORDS.items()):
        used = bool((choice == number).any())
        choices.append((code, Ragged(_records(record, values) if used else np.zeros(0, np.uint8), ends)))
    return base, Section(choices, choice)


def _records(record: str, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Packed records [n], four columns in `record`'s types."""
    dtype = np.dtype([(str(place), _dtype(code)) for place, code in enumerate(record[1:])])
    rows = np.empty(len(values[0]), dtype)
    for place, column in enumerate(values):
        rows[str(place)] = column
    return rows


def encode_candidates(ids: Ragged, sources: Ragged, features: npt.NDArray[np.float16]) -> Blobs:
    """features: float16 [items, P] in the order of ids."""
    flat = Ragged(np.ascontiguousarray(features).reshape(-1), ids.ends * features.shape[1])
    sections = [*_id_sections(ids), Section.fixed("B", sources), Section.fixed("e", flat)]
    return encode(CANDIDATES_LAYOUT, sections)


def encode_users(
    features: npt.NDArray[np.float32], attribute_codes: npt.NDArray[np.int32], groups: Ragged, embedding: Any
) -> Blobs:
    """features [users, U], attribute_codes [users, A], groups ragged uint32, embedding [users, D] or [users, 0]."""
    return encode(
        USER_LAYOUT,
        [
            Section.fixed("f", Ragged.of_matrix(features)),
            Section.fixed("i", Ragged.of_matrix(attribute_codes)),
            Section.fixed("I", groups),
            Section.fixed("e", Ragged.of_matrix(embedding)),
        ],
    )


def encode_neighbours(friends: npt.NDArray[Any], ids: Ragged, barred: Ragged) -> Blobs:
    """friends: how many each user has; ids: those stored; barred: places of the popular list."""
    sections = [Section.fixed("I", Ragged.of_matrix(friends)), *_id_sections(ids), Section.fixed("H", barred)]
    return encode(NEIGHBOURS_LAYOUT, sections)


def encode_bars(ids: Ragged) -> Blobs:
    """ids: whom each user must not be shown, beside the friends stored as neighbours; ascending."""
    return encode(BARS_LAYOUT, list(_id_sections(ids)))
