"""Decodes the user blobs of many people at once: live ranking reads a thousand in the time of a few single ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.blobs import BLOB_VERSION, USER, USER_LAYOUT

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Users:
    """What n user blobs say; a missing one has features of zero and is not among `found`.

    found bool [n]. features float32 [n, U]; codes int32 [n, A], -1 where missing; embeddings float16 [n, D].
    """

    found: npt.NDArray[np.bool_]
    features: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int32]
    embeddings: npt.NDArray[np.float16]
    _groups: list[npt.NDArray[np.uint32]]

    def groups(self, place: int) -> list[int]:
        """Companies and schools of one person."""
        return self._groups[place].tolist()


def decode_users(blobs: Sequence[bytes | None], features: int, attributes: int, dimensions: int) -> Users:
    """The blobs of a release whose users have so many features, attributes and dimensions, or no embedding at all.

    Raises CorruptArtifact where a blob is not such a one.
    """
    present = [blob for blob in blobs if blob is not None]
    found = np.fromiter((blob is not None for blob in blobs), bool, len(blobs))
    out = Users(
        found,
        np.zeros((len(blobs), features), np.float32),
        np.full((len(blobs), attributes), -1, np.int32),
        np.zeros((len(blobs), dimensions), np.float16),
        [_NOBODYS] * len(blobs),
    )
    if not present:
        return out
    lengths = np.fromiter(map(len, present), np.int64, len(present))
    if lengths.min() < USER_LAYOUT.head.size:
        raise USER_LAYOUT.corrupt(f"{lengths.min()} bytes are not one")
    data = np.frombuffer(b"".join(present), np.uint8)
    starts = np.cumsum(lengths) - lengths
    heads = np.ascontiguousarray(_taken(data, starts, USER_LAYOUT.head.size)).view(_head_type())[:, 0]
    _check(heads, lengths, features, attributes, dimensions)
    at = starts + USER_LAYOUT.head.size
    out.features[found] = _taken(data, at, 4 * features).view("<f4")
    out.codes[found] = _taken(data, at + 4 * features, 4 * attributes).view("<i4")
    if dimensions and heads["embedding:bytes"].all():
        out.embeddings[found] = _taken(data, starts + lengths - 2 * dimensions, 2 * dimensions).view("<f2")
    first = at + 4 * (features + attributes)
    slots = zip(np.flatnonzero(found).tolist(), first.tolist(), heads["groups:bytes"].tolist(), strict=True)
    for place, begin, size in slots:
        if size:
            out._groups[place] = np.frombuffer(data[begin : begin + size].tobytes(), "<u4")
    return out


_NOBODYS = np.zeros(0, np.uint32)


def _taken(data: Bytes, starts: Int64, size: int) -> Bytes:
    """uint8 [n, size]: the bytes from each start on."""
    return data[starts[:, None] + np.arange(size)]


@lru_cache(maxsize=1)
def _head_type() -> np.dtype[Any]:
    fields: list[tuple[str, str]] = [("version", "u1"), ("kind", "u1")]
    for name in USER_LAYOUT.sections:
        fields += [(f"{name}:code", "u1"), (f"{name}:bytes", "<u4")]
    return np.dtype(fields)


def _check(heads: npt.NDArray[Any], lengths: Int64, features: int, attributes: int, dimensions: int) -> None:
    if (heads["version"] != BLOB_VERSION).any():
        raise USER_LAYOUT.corrupt(f"a format version that is not {BLOB_VERSION}")
    sizes = {name: heads[f"{name}:bytes"].astype(np.int64) for name in USER_LAYOUT.sections}
    codes = all((heads[f"{name}:code"] == ord(code)).all() for name, code in USER_LAYOUT.sections.items())
    whole = np.sum(list(sizes.values()), axis=0) + USER_LAYOUT.head.size
    if (heads["kind"] != USER).any() or not codes or (whole != lengths).any():
        raise USER_LAYOUT.corrupt("its sections do not add up to its size")
    wanted = {"features": 4 * features, "attribute_codes": 4 * attributes}
    for name, size in wanted.items():
        if (sizes[name] != size).any():
            raise USER_LAYOUT.corrupt(f"its {name} are not {size} bytes, as the head of the tables says")
    if (sizes["groups"] % 4).any() or not np.isin(sizes["embedding"], (0, 2 * dimensions)).all():
        raise USER_LAYOUT.corrupt("its groups or its embedding have another length than the head of the tables says")
