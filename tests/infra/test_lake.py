"""A lake is read as its tables say, and told apart from what cannot be read."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import InputError, StoreError
from infra.lake import (
    FileShape,
    Piece,
    cut_pieces,
    describe_file,
    lake_fingerprint,
    merge_attributes,
    open_lake,
    read_piece,
)  # fmt: skip
from infra.schemas import CONNECTIONS, PROFILES
from infra.store import open_store

PAIRS = pa.table({"user_id": [1, 2], "other_id": [3, 4]})


def write(lake: Path, key: str, table: pa.Table = PAIRS, row_group_size: int | None = None) -> None:
    (lake / key).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, lake / key, row_group_size=row_group_size)


def test_tables_are_found_whatever_their_files_are_called(tmp_path: Path) -> None:
    write(tmp_path, "connections/2020/part one.pq")
    write(tmp_path, "connections/b")
    write(tmp_path, "somebody_elses/c.parquet")
    (tmp_path / "connections" / "_SUCCESS").touch()
    (tmp_path / "connections" / ".b.crc").touch()
    (tmp_path / "profiles").mkdir()
    lake = open_lake(str(tmp_path))
    assert {name: [info.key for info in files] for name, files in lake.tables.items()} == {
        "connections": ["connections/2020/part one.pq", "connections/b"]
    }
    assert lake.ignored == ("somebody_elses",)


def test_a_lake_without_connections_names_what_it_found(tmp_path: Path) -> None:
    write(tmp_path, "friends/a.parquet")
    with pytest.raises(InputError) as caught:
        open_lake(str(tmp_path))
    assert f"{tmp_path}: no table connections, found friends" in str(caught.value)


def test_a_lake_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        open_lake(str(tmp_path / "none"))


def test_the_fingerprint_is_of_content_not_of_names(tmp_path: Path) -> None:
    other = pa.table({"user_id": [5], "other_id": [6]})
    for lake, names in ((tmp_path / "a", "xy"), (tmp_path / "b", "qp")):
        write(lake, f"connections/{names[0]}")
        write(lake, f"connections/{names[1]}", other)
    before = lake_fingerprint(str(tmp_path / "a"))
    assert lake_fingerprint(str(tmp_path / "b")) == before
    write(tmp_path / "b", "connections/p", PAIRS)
    assert lake_fingerprint(str(tmp_path / "b")) != before
    write(tmp_path / "a", "blocks/x")
    assert lake_fingerprint(str(tmp_path / "a")) != before


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1 truncated"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "connections").mkdir()
    (tmp_path / "connections" / "a").write_bytes(content)
    with pytest.raises(InputError, match="connections/a: not a readable Parquet file"):
        describe_file(open_store(str(tmp_path)), CONNECTIONS, "connections/a")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "connections/a", pa.table({"user_id": range(10_000), "other_id": range(1, 10_001)}))
    whole = (tmp_path / "connections" / "a").read_bytes()
    (tmp_path / "connections" / "a").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="connections/a: not a readable Parquet file"):
        describe_file(open_store(str(tmp_path)), CONNECTIONS, "connections/a")


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    write(tmp_path, "connections/a", pa.table({"user_id": range(10_000), "other_id": range(1, 10_001)}))
    content = bytearray((tmp_path / "connections" / "a").read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    (tmp_path / "connections" / "a").write_bytes(content)
    store = open_store(str(tmp_path))
    with pytest.raises(InputError, match="connections/a: not a readable Parquet file"):
        list(read_piece(store, Piece("connections", "connections/a", (0,)), {}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": [1]}, r"connections needs a column other_id \(int64\), found \['user_id'\]"),
        ({"user_id": [[1]], "other_id": [1]}, r"connections.user_id is list<.*>, expected an integer"),
        (
            {"user_id": [1], "other_id": [1], "connected_at": [5]},
            "connected_at is int64, expected a timestamp",
        ),
    ],
)
def test_an_impossible_column_is_named(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    write(tmp_path, "connections/a", pa.table(columns))
    with pytest.raises(InputError, match=message) as caught:
        describe_file(open_store(str(tmp_path)), CONNECTIONS, "connections/a")
    assert caught.value.fix


def test_a_column_that_is_there_twice_is_named(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1])] * 3, names=["user_id", "other_id", "user_id"])
    write(tmp_path, "connections/a", twice)
    with pytest.raises(InputError, match="column user_id of connections is there more than once"):
        describe_file(open_store(str(tmp_path)), CONNECTIONS, "connections/a")


def test_an_attribute_must_be_one_value(tmp_path: Path) -> None:
    write(tmp_path, "profiles/a", pa.table({"user_id": [1], "tags": [["x"]]}))
    with pytest.raises(InputError, match=r"attribute profiles.tags is list<.*>, expected integers or text"):
        describe_file(open_store(str(tmp_path)), PROFILES, "profiles/a")


def test_attributes_are_text_where_a_file_says_so() -> None:
    shapes = [FileShape((1,), {"b": "integer", "a": "integer"}), FileShape((1,), {"a": "text"})]
    assert merge_attributes(shapes) == {"a": "text", "b": "integer"}
    assert list(merge_attributes(shapes)) == ["a", "b"]


def test_pieces_cover_each_row_group_once() -> None:
    shape = FileShape((600_000, 300_000, 300_000, 0, 5_000_000, 1), {})
    groups = [piece.groups for piece in cut_pieces("connections", "k", shape)]
    assert groups == [(0, 1), (2, 3), (4,), (5,)]
    assert [piece.groups for piece in cut_pieces("connections", "k", FileShape((0,), {}))] == [(0,)]
    assert cut_pieces("connections", "k", FileShape((), {})) == []


def test_rows_come_typed_with_reasons_and_absent_columns_null(tmp_path: Path) -> None:
    given = pa.table({"City": ["a", "b", "c"], "user_id": ["1", "x", str(2**63)], "unused": [None] * 3})
    write(tmp_path, "profiles/a", given, row_group_size=2)
    piece = Piece("profiles", "profiles/a", (0, 1))
    batches = list(read_piece(open_store(str(tmp_path)), piece, {"City": "text", "city": "integer"}))
    rows = pa.Table.from_batches(batches).to_pylist()
    blank = {"joined_at": None, "attribute_1": None}
    assert rows == [
        {"user_id": 1, "attribute_0": "a", "reason": None, "given": None, **blank},
        {
            "user_id": None,
            "attribute_0": "b",
            "reason": "user_id is not an integer",
            "given": '{"City":"b","user_id":"x"}',
            **blank,
        },
        {
            "user_id": None,
            "attribute_0": "c",
            "reason": "user_id is past int64",
            "given": '{"City":"c","user_id":"9223372036854775808"}',
            **blank,
        },
    ]


@pytest.mark.parametrize(
    ("times", "written"),
    [
        (pa.array([2**62, 0], pa.timestamp("us")), "<value out of range: 4611686018427387904>"),
        (pa.array([2**62, 0], pa.timestamp("ms", "UTC")), "<value out of range: 4611686018427387904>"),
        (pa.array([2**62, 0], pa.timestamp("us", "Nowhere/City")), "<value out of range: 4611686018427387904>"),
        (pa.array([2**30, 0], pa.int32()).view(pa.date32()), "<value out of range: 1073741824>"),
    ],
)
def test_a_time_that_python_cannot_hold_is_a_reason_against_its_row_alone(
    tmp_path: Path, times: pa.Array, written: str
) -> None:
    write(tmp_path, "connections/a", pa.table({"user_id": [1, 2], "other_id": [3, 4], "connected_at": times}))
    piece = Piece("connections", "connections/a", (0,))
    bad, good = pa.Table.from_batches(read_piece(open_store(str(tmp_path)), piece, {})).to_pylist()
    assert bad["reason"] == "connected_at is out of range"
    assert json.loads(bad["given"]) == {"user_id": 1, "other_id": 3, "connected_at": written}
    assert (good["reason"], good["given"]) == (None, None)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "connections/a")

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        InputError, match=r"connections/a: cannot be read: Permission denied\. Give this user the right"
    ):
        lake_fingerprint(str(tmp_path))


@pytest.mark.parametrize("at", ["", "connections"])
def test_a_folder_that_may_not_be_read_is_named_and_never_looks_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    write(tmp_path, "connections/a")
    scandir, listdir = os.scandir, os.listdir

    def refused(path: os.PathLike[str] | str) -> None:
        if Path(path) == tmp_path / at:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refused(path) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path: refused(path) or listdir(path))
    with pytest.raises(StoreError, match=f"{tmp_path / at}: Permission denied. Give this user the right"):
        open_lake(str(tmp_path))
