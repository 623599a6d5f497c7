"""Which rows of a table can be used, and which facts hold at the as-of."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from infra.lake import GIVEN, REASON
from infra.schemas import AFFILIATIONS, USER_EVENT_NAMES, USER_EVENTS, LakeTable


def judge(rows: DataFrame, table: LakeTable, attributes: Sequence[str] = ()) -> DataFrame:
    """Fills `reason` and `given` (the row as JSON) of the rows that break a rule of their table; others keep null.

    attributes: names of the columns attribute_0, attribute_1, …
    """
    broken = (F.when(found, F.lit(reason)) for found, reason in _rules(table))
    named = [F.col(name) for name in table.schema.names]
    named += [F.col(f"attribute_{i}").alias(name) for i, name in enumerate(attributes)]
    as_json = F.to_json(F.struct(*named), {"ignoreNullFields": "false"})
    judged = rows.withColumn(REASON, F.coalesce(F.col(REASON), *broken))
    return judged.withColumn(GIVEN, F.when(F.col(REASON).isNotNull(), F.coalesce(F.col(GIVEN), as_json)))


def _rules(table: LakeTable) -> Iterator[tuple[Column, str]]:
    """Conditions of a bad row, each with its reason, in the order in which they are told."""
    for name in table.required:
        yield F.col(name).isNull(), f"{name} is missing"
    if "other_id" in table.schema.names:
        yield F.col("user_id") == F.col("other_id"), "user_id and other_id are the same"
    if table.start and table.end:
        yield F.col(table.end) < F.col(table.start), f"{table.end} is before {table.start}"
    if table is USER_EVENTS:
        yield ~F.col("event").isin(*USER_EVENT_NAMES), "event is unknown"
    if table is AFFILIATIONS:
        yield F.col("times") < 1, "times is below 1"


def good(rows: DataFrame) -> DataFrame:
    """Judged rows without a reason against them."""
    return rows.filter(F.col(REASON).isNull()).drop(REASON, GIVEN)


def visible(rows: DataFrame, table: LakeTable, as_of: datetime) -> DataFrame:
    """Facts from strictly before the as-of; a fact without a time has always existed."""
    start = F.col(table.start or "")
    return rows.filter(start.isNull() | (start < F.lit(as_of)))


def open_at(rows: DataFrame, table: LakeTable, as_of: datetime) -> DataFrame:
    """Visible facts that have not ended before the as-of."""
    end = F.col(table.end or "")
    return rows.filter(end.isNull() | (end >= F.lit(as_of)))


def day_of(time: str) -> Column:
    """Days since 1970-01-01 UTC of a timestamp column, int."""
    return F.unix_date(F.to_date(F.col(time)))
