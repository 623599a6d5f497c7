import gzip
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import InputError, UsageError
from infra.lake import GIVEN, REASON, Piece, describe_file, read_piece
from infra.schemas import LAKE_TABLES, TIMESTAMP
from infra.store import open_store
from jobs import csv_import
from jobs.csv_import import import_folder
from tests.suites.real_graphs import SHARED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "csv").mkdir()
    return tmp_path / "csv"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "lake").mkdir()
    return tmp_path / "lake"


def into(lake: Path) -> Callable[[str, Path], None]:
    def write_file(key: str, path: Path) -> None:
        (lake / key).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, lake / key)

    return write_file


def imported(lake: Path, table: str) -> pa.Table:
    return pq.read_table(lake / table / "part-00000.parquet")


def judged(lake: Path, table: str) -> list[dict[str, Any]]:
    """The rows as build_graph reads them, with the reason against each."""
    store, key = open_store(str(lake)), f"{table}/part-00000.parquet"
    shape = describe_file(store, LAKE_TABLES[table], key)
    piece = Piece(table, key, tuple(range(len(shape.group_rows))))
    return [row for batch in read_piece(store, piece, shape.attributes) for row in batch.to_pylist()]


def test_tables_get_the_types_of_the_lake_and_other_files_are_named(folder: Path, lake: Path) -> None:
    (folder / "connections.csv").write_text(
        "other_id,user_id,connected_at,weight\n2,-1,2020-01-02,3\n9223372036854775807,3,,\n"
    )
    with gzip.open(folder / "affiliations.csv.gz", "wt") as file:
        file.write("user_id,kind,entity_id,times\n1,school,17,2\n1,place,Café 3,\n")
    (folder / "hidden.csv.gz").write_bytes(b"not looked at")
    (folder / "NOTE.txt").write_text("a note")
    (folder / "old_connections.csv").write_text("x")
    made = import_folder(folder, into(lake))
    assert made == {
        "tables": {"affiliations": 2, "connections": 2},
        "ignored": ["NOTE.txt", "hidden.csv.gz", "old_connections.csv"],
        "unknown_columns": {"connections": ["weight"]},
        "kept_as_text": {},
    }
    connections = imported(lake, "connections")
    assert connections.schema == pa.schema(
        [("other_id", pa.int64()), ("user_id", pa.int64()), ("connected_at", TIMESTAMP), ("weight", pa.int64())]
    )
    assert connections.to_pydict() == {
        "other_id": [2, 2**63 - 1],
        "user_id": [-1, 3],
        "connected_at": [datetime(2020, 1, 2, tzinfo=UTC), None],
        "weight": [3, None],
    }
    affiliations = imported(lake, "affiliations")
    assert [str(kind) for kind in affiliations.schema.types] == ["int64", "string", "string", "int32"]
    assert affiliations["entity_id"].to_pylist() == ["17", "Café 3"]


def test_times_may_be_dates_or_rfc_3339_with_any_zone(folder: Path, lake: Path) -> None:
    times = ["2020-01-02", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05+02:00", "2020-01-02 03:04:05.25", "0001-01-01"]
    rows = "".join(f"{i},{i + 1},{time}\n" for i, time in enumerate(times))
    (folder / "connections.csv").write_text(f"user_id,other_id,connected_at\n{rows}")
    import_folder(folder, into(lake))
    assert imported(lake, "connections")["connected_at"].to_pylist() == [
        datetime(2020, 1, 2, tzinfo=UTC),
        datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2020, 1, 2, 1, 4, 5, tzinfo=UTC),
        datetime(2020, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ]


def test_attributes_are_integers_only_where_every_value_is_spelt_as_one(folder: Path, lake: Path) -> None:
    (folder / "connections.csv").write_text("user_id,other_id\n1,2\n")
    (folder / "profiles.csv").write_text(
        'user_id,city,zip,dorm,joined_at,note\n1,12,01234,,2020-01-01,"a, ""b""\nc"\n2,-7,,x,,NA\n3,,99,4,,null\n'
    )
    assert import_folder(folder, into(lake))["kept_as_text"] == {}
    profiles = imported(lake, "profiles")
    assert [str(kind) for kind in profiles.schema.types] == [
        "int64", "int64", "string", "string", str(TIMESTAMP), "string",
    ]  # fmt: skip
    assert profiles["city"].to_pylist() == [12, -7, None]
    assert profiles["zip"].to_pylist() == ["01234", None, "99"]
    assert profiles["dorm"].to_pylist() == [None, "x", "4"]
    assert profiles["note"].to_pylist() == ['a, "b"\nc', "NA", "null"]


@pytest.mark.parametrize(
    ("line", "reason", "kept"),
    [
        ("abc,5", "user_id is not an integer", "abc"),
        ("1.5,5", "user_id is not an integer", "1.5"),
        ("0x1A,5", "user_id is not an integer", "0x1A"),
        ("9223372036854775808,5", "user_id is past int64", "9223372036854775808"),
        ("7,5,2020-01-01,8,9", "user_id is not an integer", "7,5,2020-01-01,8,9"),
        ("7,5,yesterday", "connected_at is not a time", "yesterday"),
        ("7,5,2020-02-30", "connected_at is not a time", "2020-02-30"),
    ],
)
def test_a_bad_value_reaches_the_quarantine_with_its_row(
    folder: Path, lake: Path, line: str, reason: str, kept: str
) -> None:
    line += "," * (2 - line.count(","))
    good = "1,2,2020-01-01\n3,4,\n"
    (folder / "connections.csv").write_text(f"user_id,other_id,connected_at\n{good}{line}\n")
    column = reason.split()[0]
    assert import_folder(folder, into(lake))["kept_as_text"] == {"connections": [column]}
    rows = judged(lake, "connections")
    assert [row[REASON] for row in rows] == [None, None, reason]
    assert kept in rows[2][GIVEN]
    assert [row["user_id"] for row in rows[:2]] == [1, 3]
    assert rows[0]["connected_at"] == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_short_line_is_a_row_with_nulls(folder: Path, lake: Path) -> None:
    (folder / "connections.csv").write_text("user_id,other_id\n1,2\n3\n\n,4\n")
    assert import_folder(folder, into(lake))["tables"] == {"connections": 3}
    rows = sorted(imported(lake, "connections").to_pylist(), key=str)
    assert rows == [{"user_id": 1, "other_id": 2}, {"user_id": 3, "other_id": None}, {"user_id": None, "other_id": 4}]


def test_text_that_is_not_utf_8_is_kept_for_the_quarantine(folder: Path, lake: Path) -> None:
    (folder / "connections.csv").write_text("user_id,other_id\n1,2\n")
    (folder / "affiliations.csv").write_bytes(
        b"user_id,kind,entity_id\n1,school,Z\xfcrich\n2,school,K\xc3\xb6ln\n3,place\xff,9,9\n"
    )
    import_folder(folder, into(lake))
    rows = judged(lake, "affiliations")
    assert [row[REASON] for row in rows] == ["entity_id is not UTF-8 text", None, "user_id is not an integer"]
    assert "place\\\\xff,9,9" in rows[2][GIVEN]
    assert rows[1]["entity_id"] == "Köln"


def test_blocks_do_not_show(folder: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{i},{i * 7}" for i in range(2000)]
    rows[1500] = "broken,1"
    rows[700] = "1,2,3"
    (folder / "connections.csv").write_text("user_id,other_id\n" + "\n".join(rows))
    import_folder(folder, into(lake))
    whole = sorted(imported(lake, "connections").to_pylist(), key=str)
    monkeypatch.setattr(csv_import, "BLOCK_BYTES", 1000)
    assert import_folder(folder, into(lake))["tables"] == {"connections": 2000}
    assert pq.ParquetFile(lake / "connections" / "part-00000.parquet").num_row_groups > 5
    assert sorted(imported(lake, "connections").to_pylist(), key=str) == whole


def test_a_header_without_rows_is_an_empty_table_with_types(folder: Path, lake: Path) -> None:
    (folder / "connections.csv").write_bytes(b"\xef\xbb\xbfuser_id, other_id ,connected_at,\r\n")
    assert import_folder(folder, into(lake))["tables"] == {"connections": 0}
    assert imported(lake, "connections").schema.names == ["user_id", "other_id", "connected_at", "column_4"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_a_header_alone_needs_no_line_end(folder: Path, lake: Path, end: str) -> None:
    (folder / "connections.csv").write_bytes(b"user_id,other_id,connected_at" + end.encode())
    assert import_folder(folder, into(lake))["tables"] == {"connections": 0}
    assert imported(lake, "connections").schema.names == ["user_id", "other_id", "connected_at"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(folder: Path, lake: Path, end: str) -> None:
    (folder / "connections.csv").write_bytes(end.join(["user_id,other_id", "1,2", "3,4", ""]).encode())
    import_folder(folder, into(lake))
    assert imported(lake, "connections").to_pydict() == {"user_id": [1, 3], "other_id": [2, 4]}


@pytest.mark.parametrize(
    ("field", "said"), [(200_000, "field larger than field limit"), (2_000_000, "longer than 1,048,576 bytes")]
)
def test_a_header_that_is_no_header_is_refused(folder: Path, lake: Path, field: int, said: str) -> None:
    (folder / "connections.csv").write_text(f"user_id,other_id,{'x' * field}\n1,2,3\n")
    with pytest.raises(InputError, match=said) as caught:
        import_folder(folder, into(lake))
    assert "connections.csv" in caught.value.what
    assert caught.value.fix


def test_a_second_import_replaces_the_first(folder: Path, lake: Path) -> None:
    for rows in ("1,2\n3,4\n", "5,6\n"):
        (folder / "connections.csv").write_text(f"user_id,other_id\n{rows}")
        import_folder(folder, into(lake))
    assert imported(lake, "connections").to_pylist() == [{"user_id": 5, "other_id": 6}]
    assert [path.name for path in (lake / "connections").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no connections\.csv or connections\.csv\.gz, found nothing\. Name the files"),
        ({"friends.csv": b"user_id,other_id\n"}, r"found friends\.csv"),
        ({"connections.csv": b"user,other\n1,2\n"}, r"connections\.csv: no column user_id, other_id in the header"),
        ({"connections.csv": b""}, r"connections\.csv: is empty"),
        ({"connections.csv": b"user_id,other_id,a,a\n"}, r"column a is there more than once"),
        ({"connections.csv.gz": b"user_id,other_id\n"}, r"connections\.csv\.gz: cannot be read: Not a gzipped file"),
        (
            {"connections.csv.gz": gzip.compress(b"user_id,other_id\n" + bytes(range(48, 58)) * 9000)[:-40]},
            r"connections\.csv\.gz: (not a readable CSV file|cannot be read)",
        ),
        ({"connections.csv": b"user_id,other_id\n", "connections.csv.gz": b""}, "both connections.csv and"),
        (
            {"connections.csv": b"user_id,other_id\n1,2\n", "blocks.csv": b"who,whom\n"},
            r"blocks\.csv: no column user_id, other_id",
        ),
    ],
)
def test_an_unusable_folder_is_refused_before_anything_is_written(
    folder: Path, lake: Path, files: dict[str, bytes], message: str
) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_folder(folder, into(lake))
    assert not list(lake.iterdir())


def test_a_missing_folder_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such folder"):
        import_folder(tmp_path / "nowhere", into(tmp_path))


@pytest.mark.graphs
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared graphs are not here")
@pytest.mark.parametrize("name", sorted(p.name for p in (SHARED / "data").glob("*")) or ["none"])
def test_the_shared_graphs_import_as_they_are(name: str, lake: Path) -> None:
    source = SHARED / "data" / name
    made = import_folder(source, into(lake))
    assert {"NOTE.txt", "hidden.csv.gz"} <= set(made["ignored"])
    assert made["kept_as_text"] == {}
    for table, rows in made["tables"].items():
        with gzip.open(source / f"{table}.csv.gz", "rt") as file:
            lines = sum(1 for _ in file) - 1
        written = imported(lake, table)
        assert rows == written.num_rows == lines
        schema = LAKE_TABLES[table].schema
        assert all(
            field.type == schema.field(field.name).type for field in written.schema if field.name in schema.names
        )
