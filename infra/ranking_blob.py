"""Encodes one ranking blob in plain Python, for lists made while a request waits: no kernels to load or to compile."""

import struct
from collections.abc import Sequence

from infra.blobs import BLOB_VERSION, PAGED_LAYOUT, RANKING_LAYOUT, RECORDS, FirstPage, Layout

_HEAD = struct.Struct("<BB")
_SECTION = struct.Struct("<BI")


def encode_ranking(
    ids: Sequence[int],
    scores: Sequence[float],
    reasons: Sequence[Sequence[str]],
    counts: Sequence[int],
    groups: Sequence[Sequence[int]] = (),
    group_rules: Sequence[int] = (),
) -> bytes:
    """A list, best first, as `decode_ranking` reads it.

    reasons: JSON objects of each person, strongest first, at least one; counts: of the first reason, not in its text,
    0 for none. groups: of each person, numbers that index group_rules, which index the tables' caps.
    """
    distinct: dict[tuple[str, ...], int] = {}
    shape = [distinct.setdefault(tuple(one), len(distinct)) for one in reasons]
    texts: dict[str, int] = {}
    shapes = [[texts.setdefault(text, len(texts)) for text in one] for one in distinct]
    base = min(ids, default=0)
    wide_ids = max(ids, default=0) - base > 0xFFFF_FFFF
    wide = max(shape, default=0) > 0xFF or max(counts, default=0) > 0xFFFF
    code = "1234"[2 * wide_ids + wide]
    record = struct.Struct(RECORDS[code])
    rows = zip(ids, scores, shape, counts, strict=True)
    shared = groups if any(groups) else ()
    sections = {
        "base": ("q", struct.pack("<q", base)),
        "items": (code, b"".join(record.pack(i - base, score, s, count) for i, score, s, count in rows)),
        "group_counts": ("B", bytes(len(of) for of in shared)),
        "group_codes": _unsigned([group for of in shared for group in of]),
        "group_rules": ("B", bytes(group_rules if shared else ())),
        "shape_lengths": ("B", bytes(len(one) for one in shapes)),
        "shapes": _unsigned([text for one in shapes for text in one]),
        "dictionary": ("s", "\n".join(texts).encode()),
    }
    return _blob(RANKING_LAYOUT, sections)


def encode_paged(page: FirstPage, ranking: bytes) -> bytes:
    """The page and the blob of its ranking in one, as `first_page` and `decode_ranking` read it."""
    marks = (page.limit, page.demoted, page.whole, *page.caps)
    wide = "I" if len(page.text) > 0xFFFF else "H"
    sections = {
        "ids": ("q", struct.pack(f"<{len(page.ids)}q", *page.ids)),
        "ends": (wide, struct.pack(f"<{len(page.ends)}{wide}", *page.ends)),
        "marks": ("H", struct.pack(f"<{len(marks)}H", *marks)),
        "text": ("s", page.text),
        "ranking": ("s", ranking),
    }
    return _blob(PAGED_LAYOUT, sections)


def _blob(layout: Layout, sections: dict[str, tuple[str, bytes]]) -> bytes:
    ordered = [sections[name] for name in layout.sections]
    head = _HEAD.pack(BLOB_VERSION, layout.kind) + b"".join(_SECTION.pack(ord(c), len(data)) for c, data in ordered)
    return head + b"".join(data for _, data in ordered)


def _unsigned(values: Sequence[int]) -> tuple[str, bytes]:
    """One byte each where that holds them all, else two."""
    if max(values, default=0) <= 0xFF:
        return "B", bytes(values)
    return "H", struct.pack(f"<{len(values)}H", *values)
