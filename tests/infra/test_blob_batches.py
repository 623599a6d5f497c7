"""Many blobs decoded at once are those decoded one at a time, and a list written in plain Python reads back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.blob_batches import decode_friend_lists, decode_users
from infra.blob_writer import Ragged, encode_neighbours, encode_users
from infra.blobs import decode_neighbours, decode_ranking, decode_user
from infra.errors import CorruptArtifact
from infra.ranking_blob import encode_ranking

USERS, FEATURES, ATTRIBUTES, DIMENSIONS = 6, 9, 3, 8
int64 = st.integers(-(2**63), 2**63 - 1)


def user_blobs(dimensions: int = DIMENSIONS) -> list[bytes]:
    draw = np.random.default_rng(4)
    groups = Ragged.of_lengths(np.arange(10), [0, 3, 1, 0, 4, 2])
    codes = draw.integers(-1, 9, (USERS, ATTRIBUTES)).astype(np.int32)
    vectors = draw.normal(size=(USERS, dimensions)).astype(np.float16)
    made = encode_users(draw.random((USERS, FEATURES), np.float32), codes, groups, vectors)
    return [made.one(user) for user in range(USERS)]


@pytest.mark.parametrize("dimensions", [0, DIMENSIONS])
def test_users_are_those_decoded_one_at_a_time(dimensions: int) -> None:
    blobs = [*user_blobs(dimensions), None]
    found = decode_users(blobs, FEATURES, ATTRIBUTES, dimensions)
    assert found.found.tolist() == [True] * USERS + [False]
    for place, blob in enumerate(blobs[:-1]):
        one = decode_user(blob or b"")
        np.testing.assert_array_equal(found.features[place], one.features)
        assert tuple(found.codes[place]) == one.attribute_codes
        assert found.groups(place) == one.groups
        np.testing.assert_array_equal(found.embeddings(np.array([place]))[0], one.embedding.astype(np.float32))
    assert not found.features[USERS].any()
    assert (found.codes[USERS] == -1).all()
    assert found.groups(USERS) == ()
    assert not found.embeddings(np.array([USERS])).any()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, USERS - 1), st.integers(0, 200), st.integers(0, 255), st.integers(0, 200))
def test_a_damaged_user_blob_is_told_or_read_and_never_crashes(user: int, at: int, byte: int, cut: int) -> None:
    blobs = user_blobs()
    damaged = bytearray(blobs[user])
    damaged[at % len(damaged)] = byte
    for broken in (bytes(damaged), blobs[user][: cut % len(blobs[user])]):
        mixed = [*blobs[:user], broken, *blobs[user + 1 :]]
        try:
            found = decode_users(mixed, FEATURES, ATTRIBUTES, DIMENSIONS)
        except CorruptArtifact:
            continue
        found.groups(user)
        found.embeddings(np.arange(USERS))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.lists(int64, max_size=6, unique=True)), max_size=6))
def test_friend_lists_are_those_decoded_one_at_a_time(people: list[tuple[int, list[int]]]) -> None:
    """Ids of one list may be further apart than 32 bits, those of others not."""
    ids = [sorted(of) for _, of in people]
    flat = np.array([i for of in ids for i in of], np.int64)
    none = Ragged(np.zeros(0, np.int64), np.zeros(len(people), np.int64))
    friends = np.array([more + len(of) for more, of in people], np.int64)
    made = encode_neighbours(friends, Ragged.of_lengths(flat, [len(of) for of in ids]), none)
    blobs = [made.one(place) for place in range(len(people))]
    found = decode_friend_lists(blobs)
    assert found.ids.tolist() == [i for blob in blobs for i in decode_neighbours(blob).ids]
    assert found.lengths.tolist() == [len(of) for of in ids]
    assert found.friends.tolist() == friends.tolist()


def test_bytes_that_are_no_friend_list_are_told() -> None:
    for broken in (b"", b"\x01N", b"\x02" * 60, user_blobs()[0]):
        with pytest.raises(CorruptArtifact):
            decode_friend_lists([broken])


@settings(max_examples=300, deadline=None)
@given(st.lists(int64, max_size=30, unique=True), st.data())
def test_a_list_written_in_plain_python_reads_back(ids: list[int], data: st.DataObject) -> None:
    texts = st.sampled_from(['{"kind":"popular"}', '{"kind":"near_in_network"}', '{"kind":"x","value":"y"}'])
    n = len(ids)
    reasons = data.draw(st.lists(st.lists(texts, min_size=1, max_size=3), min_size=n, max_size=n))
    counts = data.draw(st.lists(st.integers(0, 2**31), min_size=n, max_size=n))
    groups = data.draw(st.lists(st.lists(st.integers(0, 200), max_size=4, unique=True), min_size=n, max_size=n))
    scores = [float(np.float32(-at)) for at in range(n)]
    ranking = decode_ranking(encode_ranking(ids, scores, reasons, counts, groups, [0] * 201))
    records = list(ranking.items())
    assert ranking.ids() == ids
    assert [record[1] for record in records] == scores
    assert [record[3] for record in records] == counts
    assert [list(ranking.shape_texts()[record[2]]) for record in records] == reasons
    assert list(ranking.group_codes) == [group for of in groups for group in of]
