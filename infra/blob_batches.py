"""Decodes the blobs of many people at once, into arrays: live ranking reads a thousand in the time of a few."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.blobs import BLOB_VERSION, NEIGHBOURS, NEIGHBOURS_LAYOUT, USER, USER_LAYOUT

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Users:
    """What n user blobs say; a missing one has features of zero and is not among `found`.

    found bool [n]. features float32 [n, U]; codes int32 [n, A], -1 where missing.
    """

    found: npt.NDArray[np.bool_]
    features: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int32]
    dimensions: int
    _blobs: Sequence[bytes | None]

    def groups(self, place: int) -> tuple[int, ...]:
        """Companies and schools of one person."""
        blob = self._blobs[place]
        if blob is None:
            return ()
        (size,) = _SIZE.unpack_from(blob, _GROUPS_SIZE_AT)
        start = USER_LAYOUT.head.size + 4 * (self.features.shape[1] + self.codes.shape[1])
        return struct.unpack_from(f"<{size // 4}I", blob, start)

    def embeddings(self, places: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """float32 [m, D] of some of them, zero where none is stored."""
        out = np.zeros((len(places), self.dimensions), np.float32)
        own = [self._blobs[place] for place in places.tolist()]
        with_one = [blob is not None and blob[_EMBEDDING_SIZE] != _EMPTY for blob in own]
        tails = b"".join([blob[-2 * self.dimensions :] for blob in own if blob and blob[_EMBEDDING_SIZE] != _EMPTY])
        out[with_one] = np.frombuffer(tails, "<f2").reshape(-1, max(self.dimensions, 1))
        return out

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Users":
        """Some of them, by bool [n]."""
        blobs = [self._blobs[place] for place in np.flatnonzero(chosen).tolist()]
        return Users(self.found[chosen], self.features[chosen], self.codes[chosen], self.dimensions, blobs)


def decode_users(blobs: Sequence[bytes | None], features: int, attributes: int, dimensions: int) -> Users:
    """The blobs of a release whose users have so many features, attributes and dimensions, or no embedding at all.

    Raises CorruptArtifact where a blob is not such a one.
    """
    found = np.array([blob is not None for blob in blobs], bool)
    shown = np.zeros((len(blobs), features), np.float32)
    codes = np.full((len(blobs), attributes), -1, np.int32)
    present = [blob for blob in blobs if blob is not None]
    if present:
        kind = _beginning(features, attributes)
        lengths = np.array([len(blob) for blob in present], np.int64)
        if lengths.min() < kind.itemsize:
            raise USER_LAYOUT.corrupt(f"{lengths.min()} bytes are not one")
        rows = np.frombuffer(b"".join([blob[: kind.itemsize] for blob in present]), kind)
        _check(rows, lengths, features, attributes, dimensions)
        shown[found], codes[found] = rows["features"], rows["codes"]
    return Users(found, shown, codes, dimensions, blobs)


@lru_cache(maxsize=16)
def _beginning(features: int, attributes: int) -> np.dtype[Any]:
    """How a user blob begins: its head, then the two sections that are as long for everybody."""
    fields: list[Any] = [("version", "u1"), ("kind", "u1")]
    for name in USER_LAYOUT.sections:
        fields += [(f"{name}:code", "u1"), (f"{name}:bytes", "<u4")]
    return np.dtype([*fields, ("features", "<f4", (features,)), ("codes", "<i4", (attributes,))])


_SIZE = struct.Struct("<I")
_GROUPS_SIZE_AT = USER_LAYOUT.head.size - 4 - 5
_EMBEDDING_SIZE = slice(USER_LAYOUT.head.size - 4, USER_LAYOUT.head.size)
"""Where the head says how many bytes the embedding has."""
_EMPTY = bytes(4)


def _check(rows: npt.NDArray[Any], lengths: Int64, features: int, attributes: int, dimensions: int) -> None:
    if (rows["version"] != BLOB_VERSION).any():
        raise USER_LAYOUT.corrupt(f"a format version that is not {BLOB_VERSION}")
    sizes = {name: rows[f"{name}:bytes"].astype(np.int64) for name in USER_LAYOUT.sections}
    codes = all((rows[f"{name}:code"] == ord(code)).all() for name, code in USER_LAYOUT.sections.items())
    whole = np.sum(list(sizes.values()), axis=0) + USER_LAYOUT.head.size
    if (rows["kind"] != USER).any() or not codes or (whole != lengths).any():
        raise USER_LAYOUT.corrupt("its sections do not add up to its size")
    wanted = {"features": 4 * features, "attribute_codes": 4 * attributes}
    for name, size in wanted.items():
        if (sizes[name] != size).any():
            raise USER_LAYOUT.corrupt(f"its {name} are not {size} bytes, as the head of the tables says")
    tails = sizes["embedding"]
    if (sizes["groups"] % 4).any() or ((tails != 0) & (tails != 2 * dimensions)).any():
        raise USER_LAYOUT.corrupt("its groups or its embedding have another length than the head of the tables says")


@dataclass(frozen=True)
class FriendLists:
    """The stored friends of n people, one list after the other. ids int64 [m]; lengths, friends int64 [n]: how many of
    them are each one's, and how many friends each has in all."""

    ids: Int64
    lengths: Int64
    friends: Int64


def decode_friend_lists(blobs: Sequence[bytes]) -> FriendLists:
    """Of neighbours blobs. Raises CorruptArtifact where one is none, but not for ids that leave int64."""
    layout, kind = NEIGHBOURS_LAYOUT, _FRIENDS
    sizes = np.array([len(blob) for blob in blobs], np.int64)
    if len(blobs) and sizes.min() < kind.itemsize:
        raise layout.corrupt(f"{sizes.min()} bytes are not one")
    rows = np.frombuffer(b"".join([blob[: kind.itemsize] for blob in blobs]), kind)
    told = {name: rows[f"{name}:bytes"].astype(np.int64) for name in layout.sections}
    if (rows["version"] != BLOB_VERSION).any() or (rows["kind"] != NEIGHBOURS).any():
        raise layout.corrupt(f"a format version that is not {BLOB_VERSION}")
    whole = np.sum(list(told.values()), axis=0) + layout.head.size
    wide = rows["ids:code"] == ord("Q")
    width = np.where(wide, 8, 4)
    known = (wide | (rows["ids:code"] == ord("I"))) & (told["friends"] == 4) & (told["base"] == 8)
    if not (known & (whole == sizes) & (told["ids"] % width == 0)).all():
        raise layout.corrupt("its sections do not add up to its size")
    ends = (kind.itemsize + told["ids"]).tolist()
    texts = [blob[kind.itemsize : end] for blob, end in zip(blobs, ends, strict=True)]
    any_wide = wide.any()
    if any_wide:
        texts = [text if is_wide else _widened(text) for text, is_wide in zip(texts, wide.tolist(), strict=True)]
    offsets = np.frombuffer(b"".join(texts), "<u8" if any_wide else "<u4")
    lengths = told["ids"] // width
    ids = offsets.astype(np.int64) + np.repeat(rows["base"], lengths)
    return FriendLists(ids, lengths, rows["friends"].astype(np.int64))


def _widened(offsets: bytes) -> bytes:
    return np.frombuffer(offsets, "<u4").astype("<u8").tobytes()


def _friends_type() -> np.dtype[Any]:
    fields: list[Any] = [("version", "u1"), ("kind", "u1")]
    for name in NEIGHBOURS_LAYOUT.sections:
        fields += [(f"{name}:code", "u1"), (f"{name}:bytes", "<u4")]
    return np.dtype([*fields, ("friends", "<u4"), ("base", "<i8")])


_FRIENDS = _friends_type()
