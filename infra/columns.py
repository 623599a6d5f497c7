"""Columns as people write them, converted to the types of the lake's tables.

A value that cannot be converted becomes null and gets a reason, so that its row can be quarantined; a column whose type
has no meaning for its table (a list of user ids) is for the caller to refuse: `target_of` and `accepts` tell.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.schemas import TIMESTAMP

Target = Literal["integer", "text", "time"]

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
EXACT_FLOAT = 2**53
"""Integers from here on are not told apart by a float."""
FIRST_TIME_US, END_TIME_US = -62_135_596_800_000_000, 253_402_300_800_000_000
"""Years 1 to 9999, the range of Python and Spark."""

_US_IN = {"s": 1_000_000, "ms": 1_000, "us": 1}
_INTEGER = r"^[+-]?[0-9]+$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONED = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Converted:
    """values: the column in its target type. faults: (rows bool [n], what is wrong with their value)."""

    values: pa.Array
    faults: tuple[tuple[Mask, str], ...] = ()


def target_of(kind: pa.DataType) -> Target:
    """How a column of a lake schema is read."""
    return "integer" if pa.types.is_integer(kind) else "time" if pa.types.is_timestamp(kind) else "text"


def accepts(kind: pa.DataType, target: Target) -> bool:
    """Whether a column of type `kind` can hold values of the target."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(kind) or _is_text(kind):
        return True
    if target == "time":
        return pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return number or (target == "text" and (pa.types.is_boolean(kind) or pa.types.is_date(kind)))


def attribute_target(kind: pa.DataType) -> Target | None:
    """How an attribute column is read: integer, text, or None for a type that is neither."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not accepts(plain, "text"):
        return None
    return "text" if _is_text(plain) or pa.types.is_boolean(plain) or pa.types.is_date(plain) else "integer"


def convert(values: pa.Array, kind: pa.DataType) -> Converted:
    """`values` (of a type that `accepts` takes) as `kind`: int64, int32, string or timestamp[us, UTC]."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return Converted(pa.nulls(len(values), kind))
    if pa.types.is_timestamp(kind):
        return _to_time(values)
    if pa.types.is_string(kind):
        return _to_text(values)
    wide = _to_int64(values)
    return wide if pa.types.is_int64(kind) else _narrow(wide)


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _to_int64(values: pa.Array) -> Converted:
    kind = values.type
    if pa.types.is_uint64(kind):
        fits, past = _split(values, pc.less_equal(values, pa.scalar(INT64_MAX, pa.uint64())))
        return Converted(fits.cast(pa.int64()), _faults((past, "is past int64")))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return Converted(values.cast(pa.int64()))
    if pa.types.is_floating(kind):
        return _float_to_int64(values.cast(pa.float64()))
    if pa.types.is_decimal(kind):
        values = pc.replace_substring_regex(values.cast(pa.string()), r"\.0*$", "")
    cleaned = _clean(values)
    whole = _text_to_int64(cleaned.values)
    return Converted(whole.values, cleaned.faults + whole.faults)


def _float_to_int64(values: pa.Array) -> Converted:
    """Integers that a tool stored as floats because some were missing (then NaN)."""
    values = pc.if_else(pc.is_nan(values), None, values)
    exact, large = _split(values, pc.less(pc.abs(values), float(EXACT_FLOAT)))
    whole, broken = _split(exact, pc.equal(pc.floor(exact), exact))
    faults = _faults((large, "is a float too large to be exact"), (broken, "is not an integer"))
    return Converted(whole.cast(pa.int64()), faults)


def _text_to_int64(text: pa.Array) -> Converted:
    digits, broken = _split(text, pc.match_substring_regex(text, _INTEGER))
    whole = _cast_or_null(pc.utf8_ltrim(digits, "+"), pa.int64())
    past = _valid(digits) & ~_valid(whole)
    return Converted(whole, _faults((broken, "is not an integer"), (past, "is past int64")))


def _narrow(wide: Converted) -> Converted:
    inside = pc.and_(pc.less_equal(wide.values, INT32_MAX), pc.greater_equal(wide.values, -INT32_MAX - 1))
    fits, past = _split(wide.values, inside)
    return Converted(fits.cast(pa.int32()), wide.faults + _faults((past, "is past int32")))


def _to_text(values: pa.Array) -> Converted:
    if _is_text(values.type):
        return _clean(values)
    if pa.types.is_boolean(values.type) or pa.types.is_date(values.type):
        return Converted(values.cast(pa.string()))
    whole = _to_int64(values)
    return Converted(whole.values.cast(pa.string()), whole.faults)


def _clean(values: pa.Array) -> Converted:
    """Text without surrounding blanks; empty text is null."""
    text = _cast_or_null(values, pa.string())
    broken = _valid(values) & ~_valid(text)
    text = pc.utf8_trim_whitespace(text)
    return Converted(pc.if_else(pc.equal(text, ""), None, text), _faults((broken, "is not UTF-8 text")))


def _to_time(values: pa.Array) -> Converted:
    if _is_text(values.type):
        return _text_to_time(values)
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    valid = _valid(values)
    count = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if values.type.unit == "ns":  # cannot leave the range
        inside, micros = valid, count // 1000
    else:
        factor = _US_IN[values.type.unit]
        inside = valid & (count >= FIRST_TIME_US // factor) & (count < END_TIME_US // factor)
        micros = np.where(inside, count, 0) * factor
    return Converted(
        pa.array(micros, pa.int64(), mask=~inside).cast(TIMESTAMP), _faults((valid & ~inside, "is out of range"))
    )


def _text_to_time(values: pa.Array) -> Converted:
    """ISO 8601 text: a day, or a time with or without a zone; none means UTC."""
    cleaned = _clean(values)
    text = cleaned.values
    day = pc.match_substring_regex(text, _DAY)
    zoned = pc.and_not(pc.match_substring_regex(text, _ZONED), day)
    plain = _cast_or_null(pc.if_else(zoned, None, text), pa.timestamp("us")).cast(pa.int64()).cast(TIMESTAMP)
    parsed = pc.coalesce(_cast_or_null(pc.if_else(zoned, text, None), TIMESTAMP), plain)
    broken = _valid(text) & ~_valid(parsed)
    micros = parsed.cast(pa.int64())
    inside = pc.and_(pc.greater_equal(micros, FIRST_TIME_US), pc.less(micros, END_TIME_US))
    fits, outside = _split(parsed, inside)
    return Converted(fits, cleaned.faults + _faults((broken, "is not a time"), (outside, "is out of range")))


def _cast_or_null(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """A cast that turns only the values that cannot be cast into nulls, found by halving."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, kind)
        middle = len(values) // 2
        return pa.concat_arrays([_cast_or_null(values[:middle], kind), _cast_or_null(values[middle:], kind)])


def _split(values: pa.Array, good: pa.Array) -> tuple[pa.Array, Mask]:
    """The values where `good`, else null; and a mask of the non-null values that are not good."""
    bad = _valid(values) & ~np.asarray(good.fill_null(False).to_numpy(zero_copy_only=False), bool)
    return pc.if_else(pa.array(bad), None, values), bad


def _valid(values: pa.Array) -> Mask:
    return np.asarray(pc.is_valid(values).to_numpy(zero_copy_only=False), bool)


def _faults(*found: tuple[Mask, str]) -> tuple[tuple[Mask, str], ...]:
    return tuple((mask, reason) for mask, reason in found if mask.any())
