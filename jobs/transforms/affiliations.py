"""How often each user was seen at each entity."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.transforms.facts import day_of


def affiliation_times(affiliations: DataFrame, cutoff_day: int | None) -> DataFrame:
    """user_id, kind, entity_id, times, past_times (int64): a fact without `times` counts once.

    past_times leaves out the facts from the cutoff day on; without a cutoff it equals times.
    """
    times = F.coalesce(F.col("times"), F.lit(1)).cast("long")
    late = F.lit(False) if cutoff_day is None else F.coalesce(day_of("since") >= cutoff_day, F.lit(False))
    past = F.when(late, F.lit(0)).otherwise(times)
    return affiliations.groupBy("user_id", "kind", "entity_id").agg(
        F.sum(times).alias("times"), F.sum(past).alias("past_times")
    )
