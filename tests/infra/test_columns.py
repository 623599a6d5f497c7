"""Columns become the lake's types; what cannot be converted is null, with a reason for just those rows."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from infra.columns import accepts, attribute_target, convert, target_of
from infra.schemas import TIMESTAMP

MICROSECOND_BEFORE = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
NEW_YEAR = datetime(2010, 1, 1, tzinfo=UTC)

INTEGERS = [
    (pa.array([-128, 127], pa.int8()), [-128, 127], {}),
    (pa.array([2**63 - 1, 2**63], pa.uint64()), [2**63 - 1, None], {"is past int64": [1]}),
    (pa.array(["1", " -7 ", "+5", "", None]), [1, -7, 5, None, None], {}),
    (pa.array(["abc", "0x10", "1.0"]), [None] * 3, {"is not an integer": [0, 1, 2]}),
    (pa.array([str(2**63 - 1), str(2**63), str(-(2**63))]), [2**63 - 1, None, -(2**63)], {"is past int64": [1]}),
    (pa.array([1.0, 2.5, float("nan"), None]), [1, None, None, None], {"is not an integer": [1]}),
    (pa.array([2.0**53 - 1, 2.0**53]), [2**53 - 1, None], {"is a float too large to be exact": [1]}),
    (pa.array([Decimal("12.00"), Decimal("1.50")]), [12, None], {"is not an integer": [1]}),
    (pa.array([Decimal(10**30)]), [None], {"is past int64": [0]}),
    (pa.array(["7", "x"]).dictionary_encode(), [7, None], {"is not an integer": [1]}),
    (pa.array([b"7", b"\xff"]), [7, None], {"is not UTF-8 text": [1]}),
    (pa.nulls(2), [None, None], {}),
]
TIMES = [
    (pa.array([NEW_YEAR.replace(tzinfo=None), None]), [NEW_YEAR, None], {}),
    (pa.array([NEW_YEAR], pa.timestamp("ns", "America/New_York")), [NEW_YEAR], {}),
    (pa.array([-1], pa.timestamp("ns")), [MICROSECOND_BEFORE], {}),
    (pa.array([0, 10**15], pa.timestamp("s")), [datetime(1970, 1, 1, tzinfo=UTC), None], {"is out of range": [1]}),
    (pa.array([date(2010, 1, 1)]), [NEW_YEAR], {}),
    (pa.array([date(2010, 1, 1)], pa.date64()), [NEW_YEAR], {}),
    (pa.array(["2010-01-01", "2010-01-01T00:00:00", "2010-01-01 00:00:00Z"]), [NEW_YEAR] * 3, {}),
    (pa.array(["2010-01-01T02:00:00+02:00", "2009-12-31T19:00-05"]), [NEW_YEAR] * 2, {}),
    (pa.array(["2010-13-01", "soon", ""]), [None] * 3, {"is not a time": [0, 1]}),
    (
        pa.array(["0000-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]),
        [None] * 3,
        {"is out of range": [0, 1, 2]},
    ),
]
TEXTS = [
    (pa.array([" a ", "", None]), ["a", None, None], {}),
    (pa.array([7, None], pa.int16()), ["7", None], {}),
    (pa.array([7.0, 7.5]), ["7", None], {"is not an integer": [1]}),
    (pa.array([True, False]), ["true", "false"], {}),
    (pa.array([date(2010, 1, 1)]), ["2010-01-01"], {}),
]
CASES = (
    [(pa.int64(), *case) for case in INTEGERS]
    + [(TIMESTAMP, *case) for case in TIMES]
    + [(pa.string(), *case) for case in TEXTS]
    + [(pa.int32(), pa.array([2**31 - 1, 2**31, -(2**31)]), [2**31 - 1, None, -(2**31)], {"is past int32": [1]})]
)


@pytest.mark.parametrize(("kind", "given", "expected", "faults"), CASES)
def test_values_are_converted(kind: pa.DataType, given: pa.Array, expected: list[Any], faults: dict[str, Any]) -> None:
    assert accepts(given.type, target_of(kind))
    converted = convert(given, kind)
    assert converted.values.type == kind
    assert converted.values.to_pylist() == expected
    assert {reason: rows.nonzero()[0].tolist() for rows, reason in converted.faults} == faults


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.string(), TIMESTAMP])
def test_no_rows_stay_no_rows(kind: pa.DataType) -> None:
    for given in (pa.array([], pa.string()), pa.nulls(0)):
        assert convert(given, kind).values.type == kind
        assert len(convert(given, kind).values) == 0


def test_one_bad_value_among_many_is_found() -> None:
    values = [str(i) for i in range(10_000)]
    values[7777] = "9" * 30
    converted = convert(pa.array(values), pa.int64())
    assert converted.values.null_count == 1
    assert converted.faults[0][0].nonzero()[0].tolist() == [7777]


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        (pa.int8(), {"integer", "text"}),
        (pa.float32(), {"integer", "text"}),
        (pa.large_string(), {"integer", "text", "time"}),
        (pa.dictionary(pa.int32(), pa.string()), {"integer", "text", "time"}),
        (pa.timestamp("ms"), {"time"}),
        (pa.date32(), {"text", "time"}),
        (pa.bool_(), {"text"}),
        (pa.list_(pa.int64()), set()),
        (pa.struct([("a", pa.int64())]), set()),
        (pa.time32("s"), set()),
    ],
)
def test_types_with_no_meaning_are_not_accepted(kind: pa.DataType, targets: set[str]) -> None:
    assert {target for target in ("integer", "text", "time") if accepts(kind, target)} == targets  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (pa.int32(), "integer"),
        (pa.float64(), "integer"),
        (pa.string(), "text"),
        (pa.bool_(), "text"),
        (pa.dictionary(pa.int8(), pa.string()), "text"),
        (pa.list_(pa.string()), None),
        (TIMESTAMP, None),
    ],
)
def test_attributes_are_integers_or_text(kind: pa.DataType, target: str | None) -> None:
    assert attribute_target(kind) == target
