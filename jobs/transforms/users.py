"""Who is in the graph: every user of any table who has not left, with the latest profile."""

from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

OPPOSING = (("deactivated", "reactivated"), ("banned", "unbanned"), ("opted_out", "opted_in"))
"""Events that shut a user out, each with the one that lets them in again."""
FINAL = "erased"


def inactive_users(events: DataFrame) -> DataFrame:
    """user_id of everyone who must not appear, from visible user_events.

    Of opposing events the latest counts, of two at the same time the restricting one; erased is final.
    """
    out = [_latest_is(shut, opened).alias(f"out_{i}") for i, (shut, opened) in enumerate(OPPOSING)]
    erased = F.max(F.col("event") == FINAL).alias("erased")
    states = events.groupBy("user_id").agg(*out, erased)
    gone = reduce(Column.__or__, [F.coalesce(F.col(f"out_{i}"), F.lit(False)) for i in range(len(OPPOSING))])
    return states.filter(gone | F.col("erased")).select("user_id")


def _latest_is(shut: str, opened: str) -> Column:
    restricts = F.col("event") == shut
    of_pair = F.col("event").isin(shut, opened)
    return F.max(F.when(of_pair, F.struct(F.col("at"), restricts.alias("restricts"))))["restricts"]


def mentioned_users(tables: Sequence[DataFrame]) -> DataFrame:
    """user_id of everyone a visible row of any table names, with repeats."""
    columns = [
        table.select(F.col(name).alias("user_id"))
        for table in tables
        for name in ("user_id", "other_id")
        if name in table.columns
    ]
    return reduce(DataFrame.unionAll, columns)


def users(mentioned: DataFrame, inactive: DataFrame) -> DataFrame:
    """One row a user: user_id, active."""
    states = mentioned.withColumn("active", F.lit(True)).unionAll(inactive.withColumn("active", F.lit(False)))
    return states.groupBy("user_id").agg(F.min("active").alias("active"))


def latest_profiles(profiles: DataFrame) -> DataFrame:
    """One row a user: the one with the latest joined_at, of several such the greatest in the order of its columns."""
    columns = [name for name in profiles.columns if name != "user_id"]
    latest = profiles.groupBy("user_id").agg(F.max(F.struct(*columns)).alias("latest"))
    return latest.select("user_id", *(F.col(f"latest.{name}") for name in columns))
