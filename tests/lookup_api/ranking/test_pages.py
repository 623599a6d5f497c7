"""A cut of the first page is what the rules would make of the ranking, or it is not taken."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.blobs import decode_ranking, first_page
from infra.errors import CorruptArtifact
from infra.ranking_blob import encode_paged, encode_ranking
from lookup_api.ranking.pages import cut, shown, with_page
from lookup_api.ranking.rules import SELF, pick

CAPS = (3, 2)
TEXTS = ('{"kind":"mutual_connections"}', '{"kind":"same_attribute","attribute":"dorm","value":"\u00e9"}')
people = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.sets(st.integers(0, 2))), max_size=40)


def blob_of(drawn: list[tuple[int, int, set[int]]]) -> bytes:
    """Item i has id 10 i; of each: how many reasons beyond the first, count of the first, groups."""
    ids = [10 * at for at in range(len(drawn))]
    scores = [1 / (3 + at) for at in range(len(drawn))]
    reasons = [TEXTS[: 1 + more] for more, _, _ in drawn]
    groups = [sorted(of) for _, _, of in drawn]
    return encode_ranking(ids, scores, reasons, [count for _, count, _ in drawn], groups, [0, 1, 0])


@given(people, st.integers(1, 30), st.integers(1, 45), st.sets(st.integers(0, 39), max_size=3))
def test_a_cut_equals_the_ruled_ranking(
    drawn: list[tuple[int, int, set[int]]], size: int, limit: int, barred: set[int]
) -> None:
    paged = with_page(blob_of(drawn), size, CAPS)
    page, ranking = first_page(paged), decode_ranking(paged)
    bars = ({10 * person: "blocked" for person in barred}, {-1: SELF})
    assert page is not None
    found, expected = cut(page, limit, bars, CAPS), shown(ranking, pick(ranking, limit, bars, CAPS))
    assert [int(item["user_id"]) // 10 for item in orjson.loads(expected.items)] == order(drawn, limit, barred)
    if found is not None:
        assert (found.items, list(found.ids)) == (expected.items, expected.ids)
    elif not barred and limit == size:
        raise AssertionError("the very answer that the page was made for is not cut from it")


def order(drawn: list[tuple[int, int, set[int]]], limit: int, barred: set[int]) -> list[int]:
    """The rules again, as simply as they can be said."""
    left = {0: CAPS[0], 1: CAPS[1], 2: CAPS[0]}
    first: list[int] = []
    later: list[int] = []
    shared = any(groups for _, _, groups in drawn)
    for person, (_, _, groups) in enumerate(drawn):
        if person in barred or len(first) == limit:
            continue
        if shared and any(left[group] == 0 for group in groups):
            later.append(person)
            continue
        for group in groups:
            left[group] -= 1
        first.append(person)
    return (first + later)[:limit]


def test_a_page_of_other_caps_is_not_cut() -> None:
    page = first_page(with_page(blob_of([(0, 1, set())] * 5), 5, CAPS))
    assert page is not None
    assert cut(page, 5, (), CAPS) is not None
    assert cut(page, 5, (), (3, 3)) is None


def test_a_ranking_without_a_page_has_none() -> None:
    assert first_page(blob_of([(0, 1, set())])) is None


def test_a_page_that_does_not_fit_together_is_corrupt() -> None:
    blob = blob_of([(0, 1, set())] * 5)
    page = first_page(with_page(blob, 5, CAPS))
    assert page is not None
    damaged = bytearray(encode_paged(page, blob))
    damaged[2 + 1] -= 8  # of the bytes of its ids
    with pytest.raises(CorruptArtifact, match="paged ranking"):
        first_page(bytes(damaged))
