"""Golden cases, tests/jobs/cases: given rows in, expected rows out, in any order. Written by hand from the rules."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from infra.graph import NO_DAY
from infra.schemas import AFFILIATIONS, BLOCKS, CONNECTIONS, PROFILES, USER_EVENTS
from jobs.graph_parts import csr_of_blocks
from jobs.past_view import rows_of_entries
from jobs.spark import collect
from jobs.transforms.affiliations import affiliation_times
from jobs.transforms.facts import good, judge, open_at, visible
from jobs.transforms.pairs import Blocks, block_pairs, merge_entries
from jobs.transforms.users import inactive_users, latest_profiles, mentioned_users, users

CASES = Path(__file__).parent / "cases"
AS_OF = datetime(2020, 1, 1, tzinfo=UTC)
CUTOFF = (datetime(2019, 6, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
IDS = np.array([-5, 7, 9_000_000_000])

TYPES = {
    "bigint": ("user_id", "other_id", "attribute_0", "past_times"),
    "int": ("layer", "row", "column", "day", "count", "times"),
    "boolean": ("active", "both"),
    "timestamp": ("at", "connected_at", "disconnected_at", "joined_at", "since", "removed_at"),
}
TYPE_OF = {column: kind for kind, columns in TYPES.items() for column in columns}
PARSERS: dict[str, Callable[[str], Any]] = {
    "bigint": int,
    "int": int,
    "boolean": lambda text: text == "true",
    "timestamp": datetime.fromisoformat,
    "string": str,
}


def blocked(pairs: DataFrame) -> list[dict[str, Any]]:
    """Layers 0 and 1 of block_pairs as rows."""
    blocks = Blocks(len(IDS), 2)
    merged = collect(block_pairs(pairs, IDS, blocks))
    found = []
    for layer in (0, 1):
        days, counts = (csr_of_blocks(merged, layer, blocks, value) for value in ("days", "counts"))
        columns = rows_of_entries(days), days.indices, days.values, counts.values
        for row, column, day, count in zip(*(np.asarray(values).tolist() for values in columns), strict=True):
            day = None if day == NO_DAY else day
            found.append({"layer": layer, "row": row, "column": column, "day": day, "count": count})
    return found


TRANSFORMS: dict[str, Callable[[DataFrame], Any]] = {
    "judge_connections": lambda rows: judge(rows, CONNECTIONS),
    "judge_user_events": lambda rows: judge(rows, USER_EVENTS),
    "judge_affiliations": lambda rows: judge(rows, AFFILIATIONS),
    "judge_blocks": lambda rows: judge(rows, BLOCKS),
    "judge_profiles": lambda rows: judge(rows, PROFILES, ("age", "City")),
    "visible_connections": lambda rows: visible(rows, CONNECTIONS, AS_OF),
    "open_connections": lambda rows: open_at(visible(rows, CONNECTIONS, AS_OF), CONNECTIONS, AS_OF),
    "inactive_users": inactive_users,
    "users": lambda rows: users(rows.filter("active").drop("active"), rows.filter("not active").drop("active")),
    "latest_profiles": latest_profiles,
    "affiliation_times": lambda rows: affiliation_times(rows, CUTOFF),
    "affiliation_times_without_cutoff": lambda rows: affiliation_times(rows, None),
    "block_pairs": blocked,
}


def read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="") as file:
        return [
            {name: PARSERS[TYPE_OF.get(name, "string")](text) if text else None for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def as_frame(spark: SparkSession, rows: list[dict[str, Any]]) -> DataFrame:
    schema = ", ".join(f"{name} {TYPE_OF.get(name, 'string')}" for name in rows[0])
    return spark.createDataFrame([tuple(row.values()) for row in rows], schema)


def comparable(rows: list[dict[str, Any]], columns: list[str]) -> list[tuple[str, ...]]:
    return sorted(tuple(str(row[name]) for name in columns) for row in rows)


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_case(spark: SparkSession, case: str) -> None:
    found = TRANSFORMS[case](as_frame(spark, read_rows(CASES / case / "given.csv")))
    expected = read_rows(CASES / case / "expected.csv")
    columns = list(expected[0])
    if isinstance(found, DataFrame):
        found = collect(found.select(*columns)).to_pylist()
    assert comparable(found, columns) == comparable(expected, columns)


def test_every_transform_has_a_case() -> None:
    assert sorted(TRANSFORMS) == sorted(path.name for path in CASES.iterdir())


def test_good_rows_have_no_reason(spark: SparkSession) -> None:
    rows = as_frame(spark, read_rows(CASES / "judge_blocks" / "given.csv"))
    assert good(judge(rows, BLOCKS)).columns == ["user_id", "other_id", "at", "removed_at"]
    assert good(judge(rows, BLOCKS)).count() == 1


def test_both_ends_of_a_pair_are_mentioned(spark: SparkSession) -> None:
    pairs = as_frame(spark, [{"user_id": 1, "other_id": 2}, {"user_id": 1, "other_id": 3}])
    alone = as_frame(spark, [{"user_id": 4, "event": "erased"}])
    named = [row.user_id for row in mentioned_users([pairs, alone]).collect()]
    assert sorted(named) == [1, 1, 2, 3, 4]


def test_merging_equals_a_dictionary_of_pairs() -> None:
    draw = np.random.default_rng(5)
    row, column = (draw.integers(0, 40, 5000).astype(np.int32) for _ in range(2))
    day = draw.integers(-3, 3, 5000).astype(np.int32)
    expected: dict[tuple[int, int], list[int]] = {}
    for r, c, d in zip(row.tolist(), column.tolist(), day.tolist(), strict=True):
        expected.setdefault((r, c), []).append(d)
    degrees, columns, days, counts = merge_entries(row, column, day, 50)
    rows = np.repeat(np.arange(50), degrees)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(expected)
    assert days.tolist() == [min(expected[pair]) for pair in sorted(expected)]
    assert counts.tolist() == [len(expected[pair]) for pair in sorted(expected)]


def test_nothing_to_merge_gives_empty_rows() -> None:
    empty = np.empty(0, np.int32)
    degrees, columns, days, counts = merge_entries(empty, empty, empty, 3)
    assert degrees.tolist() == [0, 0, 0]
    assert len(columns) == len(days) == len(counts) == 0


def test_a_layer_without_rows_is_empty() -> None:
    names = ("layer", "block", "degrees", "columns", "days", "counts")
    kinds = (pa.int32(), pa.int32(), *[pa.binary()] * 4)
    merged = pa.schema(list(zip(names, kinds, strict=True))).empty_table()
    csr = csr_of_blocks(merged, 0, Blocks(3, 8), "days")
    assert csr.indptr.tolist() == [0, 0, 0, 0]
    assert csr.entries == 0
