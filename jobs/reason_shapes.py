"""Reasons of ranked lists as the serving blobs keep them: a dictionary and a few shapes a list, two numbers an item.

A dictionary entry is one reason as JSON, its count included unless it is an item's first: that count differs from item
to item and is kept there. A shape is the entries of one item in order; few differ within a list.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from infra.blob_writer import Ragged

Int64 = npt.NDArray[np.int64]


def reason_columns(reasons: pa.ListArray, owner: Int64, lengths: Int64) -> dict[str, Ragged]:
    """Columns shape, count, shape_lengths, shapes and dictionary of blob_writer.RankingColumns.

    reasons: list<REASON>, at least one an item; owner int64 [items]: list of each item, ascending; lengths int64
    [lists]: items of each.
    """
    per_item = pc.list_value_length(reasons).to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.cumsum(per_item) - per_item
    texts, text, count = _distinct(reasons.flatten(), first)
    entry, used, entry_texts = _local(owner.repeat(per_item), text, len(texts), len(lengths))
    shape, shape_first, shape_counts = _shapes(owner, entry, first, per_item, len(lengths))
    chosen = per_item[shape_first]
    places = np.repeat(first[shape_first] - (np.cumsum(chosen) - chosen), chosen) + np.arange(chosen.sum())
    shape_owner = np.repeat(np.arange(len(lengths)), shape_counts)
    return {
        "shape": Ragged.of_lengths(shape, lengths),
        "count": Ragged.of_lengths(count[first], lengths),
        "shape_lengths": Ragged.of_lengths(chosen, shape_counts),
        "shapes": Ragged.of_lengths(entry[places], np.bincount(shape_owner, chosen, len(lengths)).astype(np.int64)),
        "dictionary": _lines(texts, entry_texts, used),
    }


def _distinct(reasons: pa.StructArray, first: Int64) -> tuple[list[bytes], Int64, Int64]:
    """JSON text of each distinct dictionary entry in byte order, the entry of each reason, and its count (0 = none)."""
    count = pc.struct_field(reasons, "count").fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    kept = count.copy()
    kept[first] = 0
    distinct_counts, codes = np.unique(kept, return_inverse=True)
    columns: list[list[Any]] = []
    for name in ("kind", "attribute", "value"):
        encoded = pc.struct_field(reasons, name).dictionary_encode()
        index = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
        columns.append([*encoded.dictionary.to_pylist(), None])
        codes = codes * len(columns[-1]) + index
    distinct, which = np.unique(codes, return_inverse=True)
    texts = [_text(int(code), columns, distinct_counts) for code in distinct]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.empty(len(texts), np.int64)
    place[order] = np.arange(len(texts))
    return [texts[i] for i in order], place[which], count


def _text(code: int, columns: list[list[Any]], counts: Int64) -> bytes:
    code, value = divmod(code, len(columns[2]))
    code, attribute = divmod(code, len(columns[1]))
    count, kind = divmod(code, len(columns[0]))
    fields = {"kind": columns[0][kind], "attribute": columns[1][attribute], "value": columns[2][value]}
    fields["count"] = int(counts[count]) or None
    return orjson.dumps({name: field for name, field in fields.items() if field is not None})


def _local(owner: Int64, text: Int64, texts: int, lists: int) -> tuple[Int64, Int64, Int64]:
    """Numbers what each list uses from 0: the number of each reason, how many a list uses, and which, by list."""
    keys, which = np.unique(owner * max(texts, 1) + text, return_inverse=True)
    used = np.bincount(keys // max(texts, 1), minlength=lists).astype(np.int64)
    return which - (np.cumsum(used) - used)[owner], used, keys % max(texts, 1)


def _shapes(owner: Int64, entry: Int64, first: Int64, per_item: Int64, lists: int) -> tuple[Int64, Int64, Int64]:
    """The shape of each item within its list, the first item of every shape, and how many shapes a list has."""
    base = int(entry.max(initial=0)) + 2
    most = int(per_item.max(initial=0))
    key = np.zeros(len(owner), np.int64)
    for place in range(most):
        there = place < per_item
        at = np.minimum(first + place, max(len(entry) - 1, 0))
        key = key * base + np.where(there, entry[at] + 1, 0)
    _, dense = np.unique(key, return_inverse=True)
    keys, shown, which = np.unique(owner * max(len(owner), 1) + dense, return_index=True, return_inverse=True)
    counts = np.bincount(keys // max(len(owner), 1), minlength=lists).astype(np.int64)
    return which - (np.cumsum(counts) - counts)[owner], shown, counts


def _lines(texts: list[bytes], chosen: Int64, lengths: Int64) -> Ragged:
    """Chosen texts of each list, one a line."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    pieces = pa.array(texts, pa.binary()).take(pa.array(chosen))
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), pieces), b"\n")
    ends = np.frombuffer(joined.buffers()[1], np.int32)[: len(lengths) + 1].astype(np.int64)
    data: Any = joined.buffers()[2] or b""
    return Ragged(np.frombuffer(data, np.uint8)[: ends[-1]], ends[1:])
