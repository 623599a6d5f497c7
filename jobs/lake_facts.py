"""The lake's rows read once, judged, and kept by Spark for the jobs that follow."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import reduce

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.errors import InputError
from infra.lake import GIVEN, REASON, open_lake
from infra.schemas import QUARANTINE, LakeTable
from jobs.spark import collect
from jobs.transforms.facts import good, judge, open_at, visible
from jobs.transforms.read import TableFiles, read_table, survey

EXAMPLES = 3


@dataclass(frozen=True)
class Facts:
    """files: what each table's footers say. judged: each table that has rows, with the reasons against its rows."""

    spark: SparkSession
    as_of: datetime
    files: Mapping[str, TableFiles]
    judged: Mapping[str, DataFrame]

    @classmethod
    def read(cls, spark: SparkSession, uri: str, as_of: datetime, erased: Collection[int] = ()) -> "Facts":
        """Rows that name one of the erased do not exist.

        Raises InputError for a lake that cannot be used at all; bad rows are for `quarantine`.
        """
        files = survey(spark, open_lake(uri))
        judged = {
            name: judge(read_table(spark, uri, of, erased), of.table, tuple(of.attributes)).persist()
            for name, of in files.items()
            if of.rows
        }
        return cls(spark, as_of, files, judged)

    def has(self, table: LakeTable) -> bool:
        return table.name in self.judged

    def visible(self, table: LakeTable) -> DataFrame:
        """Good rows from before the as-of."""
        return visible(good(self.judged[table.name]), table, self.as_of)

    def open(self, table: LakeTable) -> DataFrame:
        """Good rows that hold at the as-of."""
        return open_at(self.visible(table), table, self.as_of)

    def forget(self) -> None:
        """Gives back the memory and disk of the rows."""
        for rows in self.judged.values():
            with suppress(Py4JError):  # a session that failed has none to give back
                rows.unpersist()


def quarantine(facts: Facts, max_bad_share: float) -> tuple[pa.Table, dict[str, dict[str, int]]]:
    """The bad rows of all tables, by table, reason and row (schema QUARANTINE), and their counts by table and reason.

    Raises InputError where more than `max_bad_share` of a table's rows are bad.
    """
    if not facts.judged:
        return QUARANTINE.empty_table(), {}
    rows = [
        judged.filter(F.col(REASON).isNotNull()).select(F.lit(name).alias("table"), REASON, GIVEN)
        for name, judged in facts.judged.items()
    ]
    bad = reduce(DataFrame.unionAll, rows)
    counts: dict[str, dict[str, int]] = {}
    for found in collect(bad.groupBy("table", REASON).count().orderBy("table", REASON)).to_pylist():
        counts.setdefault(found["table"], {})[found[REASON]] = found["count"]
    for name, reasons in counts.items():
        _check_share(facts, name, sum(reasons.values()), max_bad_share)
    if not counts:
        return QUARANTINE.empty_table(), counts
    table = collect(bad).rename_columns(QUARANTINE.names)
    return table.sort_by([(name, "ascending") for name in QUARANTINE.names]).cast(QUARANTINE), counts


def _check_share(facts: Facts, name: str, bad: int, most: float) -> None:
    total = facts.files[name].rows
    if bad <= most * total:
        return
    judged = facts.judged[name].filter(F.col(REASON).isNotNull())
    examples = collect(judged.orderBy(REASON, GIVEN).select(REASON, GIVEN).limit(EXAMPLES)).to_pylist()
    shown = "; ".join(f"{row[REASON]}: {row[GIVEN]}" for row in examples)
    raise InputError(
        f"table {name}: {bad:,} of {total:,} rows are bad ({bad / total:.1%}, at most {most:.1%} may be): {shown}",
        "Mend the rows, or raise graph.max_bad_share.",
    )
