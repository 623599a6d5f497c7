"""The lake's tables as DataFrames, read by Spark's Python workers straight from the object store."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from infra.columns import Target
from infra.lake import FileShape, Lake, Piece, cut_pieces, describe_file, merge_attributes, output_schema, read_piece
from infra.schemas import LAKE_TABLES, LakeTable
from infra.store import open_store
from jobs.spark import explained, run_blocks, tasks_for
from jobs.transforms.erased import without_erased


@dataclass(frozen=True)
class TableFiles:
    """A table as its files' footers describe it."""

    table: LakeTable
    pieces: tuple[Piece, ...]
    attributes: Mapping[str, Target]
    rows: int


def survey(spark: SparkSession, lake: Lake) -> dict[str, TableFiles]:
    """Checks every file's footer and cuts the tables into pieces; a table that is not there has none.

    Raises InputError for a file that cannot be read or lacks a column; see infra.lake.describe_file.
    """
    files = [(name, info.key) for name, infos in lake.tables.items() for info in infos]
    uri = lake.uri

    def describe(number: int) -> dict[str, object]:
        name, key = files[number]
        shape = describe_file(open_store(uri), LAKE_TABLES[name], key)
        return {"group_rows": shape.group_rows, "attributes": dict(shape.attributes)}

    answers = run_blocks(spark, describe, len(files))
    shapes = [FileShape(tuple(answer["group_rows"]), answer["attributes"]) for answer in answers]
    found = {}
    for name, table in LAKE_TABLES.items():
        own = [(key, shape) for (of, key), shape in zip(files, shapes, strict=True) if of == name]
        pieces = tuple(piece for key, shape in own for piece in cut_pieces(name, key, shape))
        rows = sum(sum(shape.group_rows) for _, shape in own)
        found[name] = TableFiles(table, pieces, merge_attributes([shape for _, shape in own]), rows)
    return found


def read_table(spark: SparkSession, uri: str, files: TableFiles, erased: Collection[int] = ()) -> DataFrame:
    """The table's rows in the columns of infra.lake.output_schema, but for those that name one of the erased."""
    pieces, attributes, gone = files.pieces, files.attributes, frozenset(erased)
    schema = from_arrow_schema(output_schema(files.table, attributes))
    if not pieces:
        return spark.createDataFrame([], schema)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        store = open_store(uri)
        for number in (n for batch in batches for n in batch.column(0).to_pylist()):
            with explained(f"{uri}/{pieces[number].key}"):
                for batch in read_piece(store, pieces[number], attributes):
                    yield without_erased(batch, gone)

    return spark.range(0, len(pieces), 1, tasks_for(spark, len(pieces))).mapInArrow(read, schema)
