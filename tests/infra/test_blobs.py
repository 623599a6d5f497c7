import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infra.blob_writer import (
    Ragged,
    RankingColumns,
    encode_candidates,
    encode_neighbours,
    encode_rankings,
    encode_users,
)
from infra.blobs import (
    BLOB_VERSION,
    Ranking,
    decode_candidates,
    decode_neighbours,
    decode_ranking,
    decode_user,
)
from infra.errors import CorruptArtifact

GOLDEN = Path(__file__).parents[1] / "golden" / "blob"
DECODERS = {
    "ranking": decode_ranking,
    "candidates": decode_candidates,
    "user": decode_user,
    "neighbours": decode_neighbours,
}
int64 = st.integers(-(2**63), 2**63 - 1)


def ragged(rows: list[list[Any]], dtype: Any = np.int64) -> Ragged:
    return Ragged.of_lengths(np.array([v for row in rows for v in row], dtype), [len(row) for row in rows])


def encode_lists(lists: list[dict[str, Any]]) -> Any:
    """Each list: ids, scores, shape, count, groups (of each item), group_rules, shapes, dictionary."""
    groups = [one["groups"] if any(one["groups"]) else [] for one in lists]
    texts = ["\n".join(json.dumps(reason) for reason in one["dictionary"]).encode() for one in lists]
    return encode_rankings(
        RankingColumns(
            ids=ragged([one["ids"] for one in lists]),
            scores=ragged([one["scores"] for one in lists], np.float32),
            shape=ragged([one["shape"] for one in lists]),
            count=ragged([one["count"] for one in lists]),
            group_counts=ragged([[len(of_item) for of_item in one] for one in groups]),
            group_codes=ragged([[code for of_item in one for code in of_item] for one in groups]),
            group_rules=ragged([one["group_rules"] for one in lists]),
            shape_lengths=ragged([[len(shape) for shape in one["shapes"]] for one in lists]),
            shapes=ragged([[entry for shape in one["shapes"] for entry in shape] for one in lists]),
            dictionary=ragged([list(text) for text in texts], np.uint8),
        )
    )


def told(ranking: Ranking) -> dict[str, Any]:
    """A decoded ranking as plain values."""
    records = list(ranking.items())
    return {
        "ids": ranking.ids(),
        "scores": [record[1] for record in records],
        "reasons": [ranking.reasons(record) for record in records],
        "groups": [list(ranking.group_counts), list(ranking.group_codes), list(ranking.group_rules)],
    }


SMALL = {
    "ids": [40, -3, 7],
    "scores": [2.5, 1.0, -0.25],
    "shape": [0, 1, 0],
    "count": [12, 0, 1],
    "groups": [[0], [0, 1], [1]],
    "group_rules": [0, 1],
    "shapes": [[0, 1], [1]],
    "dictionary": [{"kind": "mutual_connections"}, {"kind": "same_attribute", "attribute": "dorm", "value": "1\n69"}],
}
WIDE = {
    **SMALL,
    "ids": [-(2**63), 2**63 - 1, 0],
    "shape": [0, 299, 7],
    "count": [70_000, 0, 0],
    "groups": [[300], [300, 1], [1]],
    "group_rules": [0] * 301,
    "shapes": [[i] for i in range(300)],
    "dictionary": [{"kind": "popular", "value": str(i)} for i in range(300)],
}
EMPTY = {name: [] for name in SMALL}


def test_rankings_of_a_block_come_back_as_they_went_in_whatever_their_widths() -> None:
    blobs = encode_lists([SMALL, EMPTY, WIDE, SMALL])
    small, wide = told(decode_ranking(blobs.one(0))), told(decode_ranking(blobs.one(2)))
    dorm = SMALL["dictionary"][1]
    assert small == {
        "ids": SMALL["ids"],
        "scores": SMALL["scores"],
        "reasons": [
            [{"kind": "mutual_connections", "count": 12}, dorm],
            [dorm],
            [{"kind": "mutual_connections", "count": 1}, dorm],
        ],
        "groups": [[1, 2, 1], [0, 0, 1, 1], [0, 1]],
    }
    assert wide["ids"] == WIDE["ids"]
    assert wide["reasons"][:2] == [
        [{"kind": "popular", "value": "0", "count": 70_000}],
        [{"kind": "popular", "value": "299"}],
    ]
    assert wide["groups"][1] == [300, 300, 1, 1]
    assert told(decode_ranking(blobs.one(1)))["ids"] == []
    assert blobs.one(3) == blobs.one(0), "a blob does not depend on its neighbours in the block"


@given(st.lists(st.lists(int64, max_size=6), max_size=5))
def test_ids_of_any_size_survive(rows: list[list[int]]) -> None:
    none = ragged([[] for _ in rows])
    blobs = encode_neighbours(np.array([len(row) for row in rows], np.int64), ragged(rows), none)
    assert [decode_neighbours(blobs.one(i)).ids for i in range(len(rows))] == rows


def test_candidates_users_and_neighbours_come_back_as_they_went_in() -> None:
    features = np.arange(12, dtype=np.float16).reshape(4, 3) / 8
    blobs = encode_candidates(ragged([[9, 5, 7], [], [1]]), ragged([[1, 2, 255], [], [4]]), features)
    first, second, third = (decode_candidates(blobs.one(i)) for i in range(3))
    assert (first.ids, list(first.sources), second.ids) == ([9, 5, 7], [1, 2, 255], [])
    np.testing.assert_array_equal(np.concatenate([first.features, third.features]), features)

    values = np.array([[1.5, -2.0], [0.0, 3e38]], np.float32)
    codes = np.array([[-1, 7, 2**31 - 1], [0, 0, 0]], np.int32)
    vectors = np.array([[0.5, -0.25], [1, 0]], np.float16)
    user = decode_user(encode_users(values, codes, ragged([[3, 2**32 - 1], []]), vectors).one(0))
    np.testing.assert_array_equal(user.features, values[0])
    assert (user.attribute_codes, user.groups) == ((-1, 7, 2**31 - 1), (3, 2**32 - 1))
    np.testing.assert_array_equal(user.embedding, vectors[0])

    blob = encode_neighbours(np.array([50_000]), ragged([[-5, 2]]), ragged([[0, 499]])).one(0)
    found = decode_neighbours(blob)
    assert (found.friends, found.ids, found.barred) == (50_000, [-5, 2], (0, 499))


def full_size_user() -> int:
    """Bytes of one user's four blobs with every list full: 100 ranked, 150 x 16 features, 100 friends, 128 dims."""
    ids = [10**10 + 97 * i for i in range(150)]
    ranking = {**SMALL, "ids": ids[:100], "scores": [1.0] * 100, "shape": [0] * 100, "count": [500] * 100}
    ranking |= {"groups": [[0, 1]] * 100, "group_rules": [0, 1]}
    sizes = [
        len(encode_lists([ranking]).one(0)),
        len(encode_candidates(ragged([ids]), ragged([[1] * 150]), np.zeros((150, 16), np.float16)).one(0)),
        len(encode_neighbours(np.array([100]), ragged([ids[:100]]), ragged([[]])).one(0)),
        len(
            encode_users(
                np.zeros((1, 8), "f4"), np.zeros((1, 6), "i4"), ragged([[1, 2]]), np.zeros((1, 128), "f2")
            ).one(0)
        ),
    ]
    return sum(sizes)


def test_a_full_user_takes_about_eight_kilobytes() -> None:
    assert full_size_user() < 8192


@pytest.mark.parametrize("name", DECODERS)
def test_an_unknown_version_is_refused_with_both_numbers(name: str) -> None:
    blob = bytearray((GOLDEN / "v1" / f"{name}.bin").read_bytes())
    blob[0] = 9
    with pytest.raises(CorruptArtifact, match=rf"{name} blob: format version 9, this code reads {BLOB_VERSION}"):
        DECODERS[name](bytes(blob))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("version", ["v1"])
def test_golden_blobs_of_every_version_are_still_read(name: str, version: str) -> None:
    """The .bin files are never rewritten; the .json beside them says what they hold."""
    found = DECODERS[name]((GOLDEN / version / f"{name}.bin").read_bytes())
    assert plain(found) == json.loads((GOLDEN / version / f"{name}.json").read_text())


def plain(found: Any) -> Any:
    """A decoded blob as JSON values."""
    if isinstance(found, Ranking):
        return told(found)
    values = {name: getattr(found, name) for name in found.__slots__}
    return {
        k: v.tolist() if isinstance(v, np.ndarray) else list(v) if not isinstance(v, int) else v
        for k, v in values.items()
    }


@settings(max_examples=300)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=200))
@example("ranking", b"")
@example("ranking", b"\x01R")
def test_arbitrary_bytes_are_corrupt_and_never_a_crash(name: str, blob: bytes) -> None:
    try:
        read_all(DECODERS[name](blob))
    except CorruptArtifact:
        return


@settings(max_examples=500)
@given(st.sampled_from(sorted(DECODERS)), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_a_damaged_blob_is_corrupt_or_reads_as_another_valid_one(name: str, at: int, byte: int, cut: bool) -> None:
    blob = bytearray((GOLDEN / "v1" / f"{name}.bin").read_bytes())
    at %= len(blob)
    blob[at] = byte
    try:
        read_all(DECODERS[name](bytes(blob[:at] if cut else blob)))
    except CorruptArtifact:
        return


def read_all(found: Any) -> None:
    """Touches everything that is decoded lazily."""
    if isinstance(found, Ranking):
        told(found)


def test_a_head_that_promises_more_bytes_than_there_are_is_corrupt() -> None:
    blob = bytearray((GOLDEN / "v1" / "user.bin").read_bytes())
    struct.pack_into("<I", blob, 3, 2**32 - 1)
    with pytest.raises(CorruptArtifact, match="do not add up"):
        decode_user(bytes(blob))
