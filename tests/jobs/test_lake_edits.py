import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.errors import InputError
from infra.schemas import BLOCKS, CONNECTIONS, TIMESTAMP
from jobs.lake_edits import NEVER_US, Endings, edit_tables, first_since, remove_people

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: int) -> datetime:
    return DAY + timedelta(days=number)


def us(number: int) -> int:
    return int(day(number).timestamp()) * 1_000_000


def write(lake: Path, name: str, columns: dict[str, Any]) -> Path:
    path = lake / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def endings(table: Any, *rows: tuple[int, int, int]) -> dict[str, Endings]:
    user, other, number = np.array(rows, np.int64).T
    return {table.name: Endings(table, user, other, np.array([us(int(n)) for n in number]))}


def ends(path: Path, column: str = "disconnected_at") -> list[Any]:
    return pq.read_table(path)[column].to_pylist()


@pytest.mark.parametrize("seed", range(5))
def test_the_first_time_since_is_that_of_brute_force(seed: int) -> None:
    draw = random.Random(seed)
    rows = [(draw.randrange(3), draw.randrange(3), draw.randrange(10)) for _ in range(40)]
    asked = [(draw.randrange(4), draw.randrange(3), draw.randrange(12) - 1) for _ in range(40)]
    pairs, at = np.array([r[:2] for r in rows], np.int64), np.array([r[2] for r in rows], np.int64)
    wanted, since = np.array([r[:2] for r in asked], np.int64), np.array([r[2] for r in asked], np.int64)
    expected = [min((t for a, b, t in rows if (a, b) == (x, y) and t >= s), default=NEVER_US) for x, y, s in asked]
    assert first_since(pairs, at, wanted, since).tolist() == expected


def test_open_rows_of_a_friendship_end_whoever_ended_it(tmp_path: Path) -> None:
    columns = {
        "user_id": [1, 2, 1, 3, 1],
        "other_id": [2, 1, 2, 1, 4],
        "connected_at": pa.array([None, day(3), day(7), None, None], TIMESTAMP),
        "disconnected_at": pa.array([None, None, None, None, day(2)], TIMESTAMP),
        "note": ["a", "b", "c", "d", "e"],
    }
    path = write(tmp_path, "connections/one", columns)
    assert edit_tables(str(tmp_path), endings(CONNECTIONS, (2, 1, 5), (1, 4, 6))) == 1
    assert ends(path) == [day(5), day(5), None, None, day(2)]
    assert pq.read_table(path)["note"].to_pylist() == columns["note"]


def test_a_row_ends_at_the_first_end_after_its_start(tmp_path: Path) -> None:
    columns = {"user_id": [1, 1], "other_id": [2, 2], "connected_at": pa.array([day(0), day(4)], TIMESTAMP)}
    path = write(tmp_path, "connections/one", columns)
    edit_tables(str(tmp_path), endings(CONNECTIONS, (1, 2, 6), (1, 2, 2)))
    assert ends(path) == [day(2), day(6)]


def test_a_block_is_ended_by_the_one_who_blocked(tmp_path: Path) -> None:
    write(tmp_path, "connections/one", {"user_id": [1], "other_id": [2]})
    path = write(tmp_path, "blocks/one", {"user_id": [1, 2], "other_id": [2, 1]})
    edit_tables(str(tmp_path), endings(BLOCKS, (2, 1, 5)))
    assert ends(path, "removed_at") == [None, day(5)]


def test_files_without_such_rows_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path, "connections/one", {"user_id": [1, 2], "other_id": [3, 4]})
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert edit_tables(str(tmp_path), endings(CONNECTIONS, (1, 4, 5))) == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_times_that_were_written_as_text_stay_text_beside_those_that_are_none(tmp_path: Path) -> None:
    columns = {"user_id": ["1", "x", "5"], "other_id": ["2", "3", "6"], "disconnected_at": [None, "soon", None]}
    path = write(tmp_path, "connections/one", columns)
    edit_tables(str(tmp_path), endings(CONNECTIONS, (1, 2, 5)))
    assert [str(end) for end in ends(path)] == ["2026-01-06T00:00:00.000000Z", "soon", "None"]


def test_every_row_that_names_a_person_goes_from_every_table(tmp_path: Path) -> None:
    write(tmp_path, "connections/a", {"user_id": [1, 66, 3], "other_id": [66, 2, 4], "note": ["x", "y", "z"]})
    write(tmp_path, "connections/b", {"user_id": ["66,7,broken", "660", "8"], "other_id": [None, "166", "9"]})
    write(tmp_path, "profiles/a", {"user_id": [66, 67], "age": [30, 66]})
    write(tmp_path, "affiliations/a", {"user_id": [5], "kind": ["school"], "entity_id": ["66"]})
    assert remove_people(str(tmp_path), [66]) == {"connections": 3, "profiles": 1}
    assert pq.read_table(tmp_path / "connections/a.parquet").to_pydict() == {
        "user_id": [3], "other_id": [4], "note": ["z"],
    }  # fmt: skip
    assert pq.read_table(tmp_path / "connections/b.parquet")["user_id"].to_pylist() == ["660", "8"]
    assert pq.read_table(tmp_path / "profiles/a.parquet").to_pydict() == {"user_id": [67], "age": [66]}
    assert pq.read_table(tmp_path / "affiliations/a.parquet").num_rows == 1
    assert remove_people(str(tmp_path), [66]) == {}


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "connections").mkdir()
    (tmp_path / "connections/x.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"connections/x\.parquet"):
        remove_people(str(tmp_path), [66])
