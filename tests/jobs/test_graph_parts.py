"""Codes follow the order of values, and the split follows the id."""

import numpy as np
import pyarrow as pa
import pytest

from infra.errors import InputError
from infra.graph import LEARN, NO_DAY, REPORT, VALIDATE
from infra.settings import GraphSettings
from jobs.graph_parts import Attributes, code_affiliations, code_attributes, code_values, rows_of_ids, split_users


@pytest.mark.parametrize(
    ("values", "codes", "distinct"),
    [
        ([10, 9, None, 10, -3], [2, 1, -1, 2, 0], [-3, 9, 10]),
        (["10", "9", None, "B", "a", "ä", ""], [1, 2, -1, 3, 4, 5, 0], ["", "10", "9", "B", "a", "ä"]),
        ([], [], []),
    ],
)
def test_values_are_coded_in_their_order(values: list[object], codes: list[int], distinct: list[object]) -> None:
    kind = pa.string() if values and isinstance(values[0], str) else pa.int64()
    found, ordered = code_values(pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)]))
    assert found.tolist() == codes
    assert ordered.to_pylist() == distinct


def test_attributes_of_people_who_left_are_not_coded() -> None:
    columns = {
        "user_id": [3, 2, 1],
        "joined_at": pa.array([None, 86_400_000_000, -1], pa.timestamp("us", "UTC")),
        "attribute_0": ["x", "gone", "y"],
        "attribute_1": pa.array([None, 5, None], pa.int64()),
    }
    found = code_attributes(pa.table(columns), ("city", "age"), np.array([1, 3, 4]))
    assert found.codes.tolist() == [[1, 0, -1], [-1, -1, -1]]
    assert found.cardinalities == (2, 0)
    assert found.joined_day.tolist() == [-1, NO_DAY, NO_DAY]
    assert found.values.to_pylist() == [
        {"attribute": "city", "code": 0, "value": "x"},
        {"attribute": "city", "code": 1, "value": "y"},
    ]
    assert Attributes.none(2).codes.shape == (0, 2)


def test_entities_are_sorted_by_kind_and_id_and_those_of_nobody_are_left_out() -> None:
    columns = {
        "user_id": [1, 1, 3, 2],
        "kind": ["school", "place", "school", "club"],
        "entity_id": ["10", "10", "9", "1"],
        "times": [2, 1, 4, 1],
        "past_times": [0, 1, 3, 1],
    }
    found = code_affiliations(pa.table(columns), np.array([1, 3]))
    assert found.kinds == ("place", "school")
    assert found.entity_kind.tolist() == [0, 1, 1]
    assert found.entities.column("entity_id").to_pylist() == ["10", "10", "9"]
    assert found.now.row(0).tolist() == [0, 1]
    assert np.asarray(found.now.values).tolist() == [1, 2, 4]
    assert found.past.row(0).tolist() == [0]
    assert np.asarray(found.past.values).tolist() == [1, 3]


def test_affiliations_of_people_who_left_alone_give_no_entities() -> None:
    columns = {"user_id": [2], "kind": ["club"], "entity_id": ["1"], "times": [1], "past_times": [1]}
    found = code_affiliations(pa.table(columns), np.array([1, 3]))
    assert (found.kinds, len(found.entity_kind), found.now.entries) == ((), 0, 0)
    assert found.now.rows == 2


def test_rows_of_ids_are_ranks() -> None:
    assert rows_of_ids(np.array([-4, 7]), np.array([7, -4, 0, 2**62])).tolist() == [1, 0, -1, -1]
    assert rows_of_ids(np.array([-4, 7]), np.array([[7, 0], [-4, 7]])).tolist() == [[1, -1], [0, 1]]
    assert rows_of_ids(np.empty(0, np.int64), np.array([7])).tolist() == [-1]
    assert rows_of_ids(np.empty(0, np.int64), np.array([[7, 0], [-4, 7]])).tolist() == [[-1, -1], [-1, -1]]


def test_the_split_belongs_to_the_id() -> None:
    ids = np.arange(50_000) * 97
    split = split_users(ids, GraphSettings(), 17)
    shares = np.bincount(split, minlength=3) / len(ids)
    assert shares[[LEARN, VALIDATE, REPORT]] == pytest.approx([0.6, 0.1, 0.3], abs=0.01)
    assert (split_users(ids[1000:], GraphSettings(), 17) == split[1000:]).all()
    assert (split_users(ids, GraphSettings(), 18) != split).any()


def test_as_many_kinds_as_an_index_reaches_are_kept_and_more_are_refused() -> None:
    def seen(kinds: int) -> pa.Table:
        ones = np.ones(kinds, np.int64)
        names = [f"{i:05d}" for i in range(kinds)]
        return pa.table({"user_id": ones, "kind": names, "entity_id": names, "times": ones, "past_times": ones})

    kept = code_affiliations(seen(32_768), np.array([1]))
    assert (kept.entity_kind == np.arange(32_768)).all()
    with pytest.raises(InputError, match=r"affiliations: 32,769 kinds, at most 32,768 .*entity_id"):
        code_affiliations(seen(32_769), np.array([1]))
