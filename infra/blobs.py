"""Binary blobs of the serving tables: one value a user and table, read whole by one lookup.

Every blob starts with its format version, then its kind, then a table of contents (element type and bytes of each
section), then the sections, little-endian and unpadded. The encoder (`infra.blob_writer`) picks the narrowest element
type that holds a user's values, so a decoder follows the table of contents, never its own idea of a type.
Bytes that break these rules raise CorruptArtifact; no input crashes the process.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from infra.errors import CorruptArtifact

BLOB_VERSION = 1
RANKING, CANDIDATES, USER, NEIGHBOURS, BARS, PAGED = b"RCUNBP"

RECORDS = {"1": "<IfBH", "2": "<IfHI", "3": "<QfBH", "4": "<QfHI"}
"""An item of a ranking in its narrow and wide forms: id - base, score, shape of its reasons, count of the first."""
SIZES = {"B": 1, "H": 2, "I": 4, "i": 4, "Q": 8, "q": 8, "e": 2, "f": 4, "s": 1}
SIZES |= {code: struct.calcsize(record) for code, record in RECORDS.items()}
"""Bytes of an element by type code: the codes of `struct`, s for text, and the keys of RECORDS."""
RAW = frozenset("Bes1234")
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

    def split(self, blob: bytes, wanted: int | None = None) -> list[Any]:
        """The sections in order, or the first `wanted`: a tuple of numbers each, bytes for those in RAW."""
        if not blob or blob[0] != BLOB_VERSION:
            found = blob[0] if blob else "none"
            raise CorruptArtifact(f"{self.name} blob: format version {found}, this code reads {BLOB_VERSION}")
        if len(blob) < self.head.size or blob[1] != self.kind:
            raise self.corrupt(f"{len(blob)} bytes are not one")
        head = self.head.unpack_from(blob)
        if self.head.size + sum(head[3::2]) != len(blob):
            raise self.corrupt("its sections do not add up to its size")
        return self._cut(blob, head, wanted)

    def corrupt(self, what: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.name} blob: {what}", "Verify the release.")

    def _cut(self, blob: bytes, head: tuple[int, ...], wanted: int | None) -> list[Any]:
        parts: list[Any] = []
        at = self.head.size
        for codes, number, length in zip(self._codes[:wanted], head[2::2], head[3::2], strict=False):
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
    items="1234",
    group_counts="B",
    group_codes="BH",
    group_rules="B",
    shape_lengths="B",
    shapes="BH",
    dictionary="s",
)
PAGED_LAYOUT = Layout(PAGED, "paged ranking", ids="q", ends="HI", marks="H", text="s", ranking="s")
CANDIDATES_LAYOUT = Layout(CANDIDATES, "candidates", base="q", ids="IQ", sources="B", features="e")
USER_LAYOUT = Layout(USER, "user", features="f", attribute_codes="i", groups="I", embedding="e")
NEIGHBOURS_LAYOUT = Layout(NEIGHBOURS, "neighbours", friends="I", base="q", ids="IQ", barred="H")
BARS_LAYOUT = Layout(BARS, "bars", base="q", ids="IQ")


Record = tuple[int, float, int, int]
"""id - base, score, shape, count of the first reason (0 = none)."""

_RECORD_OF_SIZE = {SIZES[code]: struct.Struct(record) for code, record in RECORDS.items()}


class Ranking:
    """A ranked list, best first, decoded only as far as it is read. n items; g groups that at least two items share.

    items(): the records. group_counts: groups of each item, empty when no two items share one; group_codes: those of
    item 0, then of item 1, …; group_rules: rule of each of the g groups (an index into the tables' rule names).
    A shape is a list of reasons: indices into the dictionary of JSON objects.
    """

    __slots__ = ("_dictionary", "_lengths", "_record", "_records", "_shapes", "_texts", "base", "group_codes",
                 "group_counts", "group_rules")  # fmt: skip

    def __init__(self, blob: bytes) -> None:
        """Raises CorruptArtifact."""
        layout = RANKING_LAYOUT
        base, self._records, self.group_counts, self.group_codes, self.group_rules, lengths, shapes, text = (
            layout.split(blob)
        )
        self._record = _RECORD_OF_SIZE[SIZES[chr(blob[_ITEMS_CODE_AT])]]
        self._lengths, self._shapes = lengths, shapes
        self._dictionary = _dictionary(layout, text)
        self._texts: list[tuple[str, str] | None] = [None] * len(lengths)
        if len(base) != 1:
            raise layout.corrupt("it has no base")
        self.base: int = base[0]
        if self.base >= _FAR_BASE and max(self.ids(), default=0) >= 1 << 63:
            raise layout.corrupt("its ids are not int64")
        self._check(layout)

    def _check(self, layout: Layout) -> None:
        if self.group_counts and len(self.group_counts) != len(self):
            raise layout.corrupt("its columns differ in length")
        if len(self.group_codes) != sum(self.group_counts) or not _all_below(self.group_codes, len(self.group_rules)):
            raise layout.corrupt("its groups do not match their counts")
        if len(self._shapes) != sum(self._lengths) or 0 in self._lengths:
            raise layout.corrupt("its reasons do not match their counts")
        if not _all_below(self._shapes, len(self._dictionary)):
            raise layout.corrupt("a reason is not in its dictionary")

    def __len__(self) -> int:
        return len(self._records) // self._record.size

    def items(self) -> Iterator[Record]:
        """Records from the best on; unpacked as they are asked for."""
        return self._record.iter_unpack(self._records)  # type: ignore[return-value]

    def ids(self) -> list[int]:
        base = self.base
        return [base + record[0] for record in self.items()]

    def id_at(self, place: int) -> int:
        return self.base + self._record.unpack_from(self._records, place * self._record.size)[0]

    def text_of(self, shape: int) -> tuple[str, str]:
        """The reasons of a shape as JSON objects with commas between, cut where the first one's count goes: before its
        closing brace. Raises CorruptArtifact."""
        try:
            return self._texts[shape] or self._render(shape)
        except IndexError:
            raise RANKING_LAYOUT.corrupt(f"shape {shape} is not among its {len(self._lengths)}") from None

    def shape_texts(self) -> list[tuple[str, ...]]:
        """The reasons of each shape, a JSON object each; the first without its count."""
        found, end = [], 0
        for length in self._lengths:
            found.append(tuple(self._dictionary[i] for i in self._shapes[end : end + length]))
            end += length
        return found

    def reasons(self, record: Record) -> list[Reason]:
        """The reasons of an item, strongest first."""
        (head, tail), count = self.text_of(record[2]), record[3]
        try:
            return list(orjson.loads(f'[{head},"count":{count}{tail}]' if count else f"[{head}{tail}]"))
        except orjson.JSONDecodeError as error:
            raise RANKING_LAYOUT.corrupt("its dictionary is not JSON") from error

    def _render(self, shape: int) -> tuple[str, str]:
        start = sum(self._lengths[:shape])
        texts = [self._dictionary[i] for i in self._shapes[start : start + self._lengths[shape]]]
        for text in texts:
            if text[:1] + text[-1:] != "{}":
                raise RANKING_LAYOUT.corrupt(f"its dictionary holds {text[:40]!r}")
        whole, cut = ",".join(texts), len(texts[0]) - 1
        self._texts[shape] = rendered = (whole[:cut], whole[cut:])
        return rendered


@dataclass(frozen=True, slots=True)
class FirstPage:
    """The first people of a ranking as they are shown where nothing happened since, kept before the ranking itself.

    ids: best first. ends: of each one's JSON object in `text`, which has commas between. limit: of the answer that it
    is; demoted: how many a cap moved back in it. whole: nobody else is ranked. caps: those it was made under.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    text: bytes
    limit: int
    demoted: int
    whole: bool
    caps: tuple[int, ...]


def first_page(blob: bytes) -> FirstPage | None:
    """None for a ranking that is kept without one. Raises CorruptArtifact."""
    if blob[1:2] != _PAGED:
        return None
    ids, ends, marks, text = PAGED_LAYOUT.split(blob, 4)
    if len(ids) != len(ends) or len(marks) < 3 or (ends[-1] if ends else 0) != len(text):
        raise PAGED_LAYOUT.corrupt("its page does not fit together")
    return FirstPage(ids, ends, text, marks[0], marks[1], marks[2] == 1, marks[3:])


def decode_ranking(blob: bytes) -> Ranking:
    """Of a blob with or without a first page. Raises CorruptArtifact."""
    return Ranking(PAGED_LAYOUT.split(blob)[-1] if blob[1:2] == _PAGED else blob)


_PAGED = bytes([PAGED])
_ITEMS_CODE_AT = 2 + 5
"""Where the head says how wide the items are."""
_FAR_BASE = (1 << 62) - 1


_BYTES = bytes(range(256))


def _all_below(values: bytes | tuple[int, ...], limit: int) -> bool:
    if isinstance(values, bytes):  # deleting what is allowed is ten times as fast as looking for the largest
        return not values.translate(None, _BYTES[:limit])
    return max(values, default=-1) < limit


def _dictionary(layout: Layout, text: bytes) -> list[str]:
    """JSON objects, one a line: no JSON text holds a bare line feed."""
    try:
        return text.decode().split("\n") if text else []
    except UnicodeDecodeError as error:
        raise layout.corrupt("its dictionary is not text") from error


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


def decode_bars(blob: bytes) -> list[int]:
    """Ids that the user must not be shown beside the stored friends: further friends, blocked, dismissed; ascending.

    Raises CorruptArtifact.
    """
    return _ids(BARS_LAYOUT, *BARS_LAYOUT.split(blob))
