"""Binary blobs of the serving tables: one value a user and table, read whole by one lookup.

Every blob starts with its format version, then its kind, then a table of contents (element type and bytes of each
section), then the sections, little-endian and unpadded. The encoder (`infra.blob_writer`) picks the narrowest element
type that holds a user's values, so a decoder follows the table of contents, never its own idea of a type.
Bytes that break these rules raise CorruptArtifact; no input crashes the process.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from infra.errors import CorruptArtifact

BLOB_VERSION = 1
RANKING, CANDIDATES, USER, NEIGHBOURS = b"RCUN"

SIZES = {"B": 1, "H": 2, "I": 4, "i": 4, "Q": 8, "q": 8, "e": 2, "f": 4, "s": 1}
"""Bytes of an element by type code: the codes of `struct`, and s for text."""
RAW = frozenset("Bes")
"""Element types that stay bytes when decoded."""

Reason = dict[str, Any]


class Layout:
    """Sections of one kind of blob: name -> the element types it may have."""

    def __init__(self, kind: int, name: str, **sections: str) -> None:
        self.kind = kind
        self.name = name
        self.sections = sections
        self.head = struct.Struct("<BB" + "BI" * len(sections))
        self._codes = [{ord(code): code for code in codes} for codes in sections.values()]

    def split(self, blob: bytes) -> list[Any]:
        """The sections in order: a tuple of numbers each, bytes for those in RAW."""
        if not blob or blob[0] != BLOB_VERSION:
            found = blob[0] if blob else "none"
            raise CorruptArtifact(f"{self.name} blob: format version {found}, this code reads {BLOB_VERSION}")
        if len(blob) < self.head.size or blob[1] != self.kind:
            raise self.corrupt(f"{len(blob)} bytes are not one")
        head = self.head.unpack_from(blob)
        if self.head.size + sum(head[3::2]) != len(blob):
            raise self.corrupt("its sections do not add up to its size")
        return self._cut(blob, head)

    def corrupt(self, what: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.name} blob: {what}", "Verify the release.")

    def _cut(self, blob: bytes, head: tuple[int, ...]) -> list[Any]:
        parts: list[Any] = []
        at = self.head.size
        for codes, number, length in zip(self._codes, head[2::2], head[3::2], strict=True):
            code = codes.get(number)
            if code is None or length % SIZES[code]:
                raise self.corrupt(f"section {list(self.sections)[len(parts)]} has no such element type or length")
            end = at + length
            raw = code in RAW
            parts.append(blob[at:end] if raw else _numbers(code, length // SIZES[code]).unpack_from(blob, at))
            at = end
        return parts


@lru_cache(maxsize=8192)
def _numbers(code: str, count: int) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


RANKING_LAYOUT = Layout(
    RANKING,
    "ranking",
    base="q",
    ids="IQ",
    scores="f",
    group_counts="B",
    group_codes="BH",
    group_rules="B",
    reason_counts="B",
    reason_index="BH",
    reason_numbers="BHI",
    dictionary="s",
)
CANDIDATES_LAYOUT = Layout(CANDIDATES, "candidates", base="q", ids="IQ", sources="B", features="e")
USER_LAYOUT = Layout(USER, "user", features="f", attribute_codes="i", groups="I", embedding="e")
NEIGHBOURS_LAYOUT = Layout(NEIGHBOURS, "neighbours", friends="I", base="q", ids="IQ", barred="H")


@dataclass(slots=True)
class Ranking:
    """A ranked list, best first, never changed once decoded. n items, g groups that at least two of them share.

    ids, scores: n numbers. group_rules: rule of each of the g groups (an index into the tables' rule names).
    group_codes: the groups of item 0, then those of item 1, …; group_counts: how many each item has, empty when no two
    items share a group. reason_index, reason_numbers: the same for reasons, those of item i end at reason_ends[i].
    """

    ids: Sequence[int]
    scores: Sequence[float]
    group_counts: Sequence[int]
    group_codes: Sequence[int]
    group_rules: Sequence[int]
    reason_counts: Sequence[int]
    reason_ends: Sequence[int]
    reason_index: Sequence[int]
    reason_numbers: Sequence[int]
    dictionary: list[Reason]

    def reasons(self, item: int) -> list[Reason]:
        """Reasons of one item as they are answered, strongest first; a count of 0 is no count."""
        end = self.reason_ends[item]
        start = end - self.reason_counts[item]
        dictionary = self.dictionary
        return [
            {**dictionary[index], "count": number} if number else dictionary[index]
            for index, number in zip(self.reason_index[start:end], self.reason_numbers[start:end], strict=True)
        ]


def decode_ranking(blob: bytes) -> Ranking:
    """Raises CorruptArtifact."""
    layout = RANKING_LAYOUT
    base, offsets, scores, group_counts, group_codes, group_rules, counts, index, numbers, text = layout.split(blob)
    ids = _ids(layout, base, offsets)
    reason_ends = list(accumulate(counts))
    if not len(ids) == len(scores) == len(counts) or len(group_counts) not in (0, len(ids)):
        raise layout.corrupt("its columns differ in length")
    if not len(index) == len(numbers) == (reason_ends[-1] if reason_ends else 0):
        raise layout.corrupt("its reasons do not match their counts")
    if len(group_codes) != sum(group_counts) or not _all_below(group_codes, len(group_rules)):
        raise layout.corrupt("its groups do not match their counts")
    dictionary = _dictionary(layout, text)
    if not _all_below(index, len(dictionary)):
        raise layout.corrupt("a reason is not in its dictionary")
    return Ranking(
        ids, scores, group_counts, group_codes, group_rules, counts, reason_ends, index, numbers, dictionary
    )  # fmt: skip


_BYTES = bytes(range(256))


def _all_below(values: bytes | tuple[int, ...], limit: int) -> bool:
    if isinstance(values, bytes):  # deleting what is allowed is ten times as fast as looking for the largest
        return not values.translate(None, _BYTES[:limit])
    return max(values, default=-1) < limit


def _dictionary(layout: Layout, text: bytes) -> list[Reason]:
    try:
        entries = orjson.loads(b"[%b]" % text)
    except orjson.JSONDecodeError as error:
        raise layout.corrupt("its dictionary is not JSON") from error
    if not all(type(entry) is dict for entry in entries):
        raise layout.corrupt("its dictionary holds no reasons")
    return entries


def _ids(layout: Layout, base: tuple[int, ...], offsets: tuple[int, ...]) -> list[int]:
    if len(base) != 1 or base[0] + max(offsets, default=0) >= 1 << 63:
        raise layout.corrupt("its ids are not int64")
    first = base[0]
    return [first + offset for offset in offsets]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Stored candidates of a user, best first: n ids, source bits uint8 [n], pair features float16 [n, P]."""

    ids: list[int]
    sources: bytes
    features: npt.NDArray[np.float16]


def decode_candidates(blob: bytes) -> Candidates:
    """Raises CorruptArtifact."""
    layout = CANDIDATES_LAYOUT
    base, offsets, sources, features = layout.split(blob)
    ids = _ids(layout, base, offsets)
    values = np.frombuffer(features, "<f2")
    if len(sources) != len(ids) or (len(values) % len(ids) if ids else len(values)):
        raise layout.corrupt("its columns differ in length")
    return Candidates(ids, sources, values.reshape(len(ids), -1) if ids else values.reshape(0, 0))


@dataclass(frozen=True, slots=True)
class User:
    """What the ranker and the rules know of a user.

    features: float32 [U]. attribute_codes: int32 [A], -1 where missing. groups: ids of the companies and schools.
    embedding: float16 [D], or [0] where the release stores none.
    """

    features: npt.NDArray[np.float32]
    attribute_codes: tuple[int, ...]
    groups: tuple[int, ...]
    embedding: npt.NDArray[np.float16]


def decode_user(blob: bytes) -> User:
    """Raises CorruptArtifact."""
    features, attribute_codes, groups, embedding = USER_LAYOUT.split(blob)
    return User(np.array(features, np.float32), attribute_codes, groups, np.frombuffer(embedding, "<f2"))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Friends of a user. friends: how many there are. ids: those stored, ascending.

    barred: places (0 = first) of the popular list that this user must not be shown: self, friends, excluded.
    """

    friends: int
    ids: list[int]
    barred: tuple[int, ...]


def decode_neighbours(blob: bytes) -> Neighbours:
    """Raises CorruptArtifact."""
    layout = NEIGHBOURS_LAYOUT
    friends, base, offsets, barred = layout.split(blob)
    if len(friends) != 1:
        raise layout.corrupt("it does not say how many friends there are")
    return Neighbours(friends[0], _ids(layout, base, offsets), barred)
