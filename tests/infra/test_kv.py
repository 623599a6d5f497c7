import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import CorruptArtifact, PymkError, UsageError
from infra.kv import (
    META,
    RANKINGS,
    SERVING_TABLES,
    USERS,
    KeyValueReader,
    RowsHash,
    decode_keys,
    encode_key,
    encode_keys,
    partition_of,
    partitions_of,
)
from infra.lmdb_tables import LmdbTables, LmdbWriter
from tests.suites.kv_stores import KeyValueSuite, Load, Rows, put_rows

int64 = st.integers(-(2**63), 2**63 - 1)


class TestLmdbTables(KeyValueSuite):
    @pytest.fixture(params=[1, 3], ids=["one file", "three files"])
    def load(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
        opened: list[KeyValueReader] = []

        def write_and_open(rows: Rows) -> KeyValueReader:
            write(tmp_path / "tables", rows, request.param)
            opened.append(LmdbTables(tmp_path / "tables"))
            return opened[-1]

        yield write_and_open
        for reader in opened:
            reader.close()


def write(folder: Path, rows: Rows, partitions: int = 2, batch: int = 3) -> str:
    with LmdbWriter(folder, partitions) as writer:
        put_rows(writer, rows, batch)
        return writer.finish()


@given(st.lists(int64, min_size=1), st.integers(1, 64))
def test_keys_sort_as_numbers_and_the_vectorised_forms_agree(keys: list[int], partitions: int) -> None:
    array = np.array(keys, np.int64)
    assert [row.tobytes() for row in encode_keys(array)] == [encode_key(key) for key in keys]
    assert sorted(keys) == sorted(keys, key=encode_key)
    assert decode_keys(b"".join(map(encode_key, keys))).tolist() == keys
    assert partitions_of(array, partitions).tolist() == [partition_of(key, partitions) for key in keys]


def test_partitions_are_those_of_splitmix64() -> None:
    """First outputs of the reference generator seeded with 0: https://prng.di.unimi.it/splitmix64.c."""
    assert partition_of(0, 1 << 64) == 0xE220A8397B1DCDAF
    assert partition_of(0x9E3779B97F4A7C15 - (1 << 64), 1 << 64) == 0x6E789E6AA1B965F4


def test_the_content_hash_depends_on_the_rows_alone(tmp_path: Path) -> None:
    rows = {RANKINGS: {key: b"r%d" % key for key in range(-20, 20)}, USERS: dict.fromkeys(range(9), b"u")}
    hashes = {
        write(tmp_path / f"{partitions}-{batch}", rows, partitions, batch)
        for partitions, batch in ((1, 1), (2, 7), (5, 100))
    }
    assert len(hashes) == 1
    changed = {**rows, USERS: {**rows[USERS], 3: b"v"}}
    moved = {RANKINGS: rows[USERS], USERS: rows[RANKINGS]}
    assert not hashes & {write(tmp_path / "changed", changed), write(tmp_path / "moved", moved)}


def test_all_rows_come_back_in_key_order_whatever_the_partitions_and_have_the_same_hash(tmp_path: Path) -> None:
    rows = {RANKINGS: {key: b"r" * (key % 5) for key in range(-20, 20)}, META: {0: b"head"}, USERS: {}}
    for partitions in (1, 3):
        folder = tmp_path / str(partitions)
        content_hash = write(folder, rows, partitions)
        reader = LmdbTables(folder)
        digest, found = RowsHash(), {}
        for table in SERVING_TABLES:
            for keys, values, ends in reader.blocks(table, 7):
                digest.update(table, keys, values, ends)
                starts = [0, *ends.tolist()]
                cut = [values[a:b].tobytes() for a, b in zip(starts, ends.tolist(), strict=False)]
                found |= {(table, key): value for key, value in zip(keys.tolist(), cut, strict=True)}
        reader.close()
        assert digest.hexdigest() == content_hash
        assert found == {(table, key): value for table, values in rows.items() for key, value in values.items()}


def test_keys_out_of_order_are_refused(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "t", 2) as writer:
        one = np.frombuffer(b"x", np.uint8)
        writer.put(USERS, np.array([5]), one, np.array([1]))
        for late in (5, 4, -(2**63)):
            with pytest.raises(UsageError, match="users: keys out of order"):
                writer.put(USERS, np.array([late]), one, np.array([1]))


def test_reading_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, {USERS: {1: b"x"}})
    before = {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)}
    reader = LmdbTables(tmp_path)
    assert reader.get(USERS, 1) == b"x"
    reader.close()
    after = {name: (tmp_path / name).stat() for name in os.listdir(tmp_path)}
    assert {n: (s.st_size, s.st_mtime_ns) for n, s in before.items()} == {
        n: (s.st_size, s.st_mtime_ns) for n, s in after.items()
    }


def test_two_readers_of_the_same_files_do_not_disturb_each_other(tmp_path: Path) -> None:
    write(tmp_path, {USERS: {1: b"x"}})
    first, second = LmdbTables(tmp_path), LmdbTables(tmp_path)
    first.close()
    assert second.get(USERS, 1) == b"x"
    second.close()


@pytest.mark.parametrize("damage", ["truncated to nothing", "not lmdb", "one of two files missing", "no files"])
def test_damaged_files_are_corrupt_not_a_crash(tmp_path: Path, damage: str) -> None:
    write(tmp_path, {USERS: {1: b"x"}})
    first, second = tmp_path / "part-00000.lmdb", tmp_path / "part-00001.lmdb"
    if damage == "truncated to nothing":
        first.write_bytes(b"")
    elif damage == "not lmdb":
        first.write_bytes(b"hello" * 5000)
    else:
        first.unlink()
        if damage == "no files":
            second.unlink()
    with pytest.raises(CorruptArtifact, match="Verify the release"):
        LmdbTables(tmp_path)


@pytest.mark.parametrize(
    ("full_below", "said"),
    [
        (1 << 62, r"the disk is full: .* MiB are free. Free space and run again; the current release is untouched"),
        (0, r"The disk is not full \(.* MiB are free\): look for its errors"),
    ],
)
def test_a_write_that_fails_says_where_and_whether_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_below: int, said: str
) -> None:
    monkeypatch.setattr("infra.lmdb_tables.MAP_BYTES", 1 << 16)
    monkeypatch.setattr("infra.lmdb_tables.FULL_BELOW_BYTES", full_below)
    value = np.zeros(1 << 18, np.uint8)
    with LmdbWriter(tmp_path / "t", 1) as writer, pytest.raises(PymkError, match=said) as caught:
        writer.put(USERS, np.array([1]), value, np.array([len(value)]))
    assert str(tmp_path / "t") in caught.value.what


def test_a_file_that_fails_when_it_is_counted_is_corrupt_not_a_crash(tmp_path: Path) -> None:
    write(tmp_path, {USERS: {1: b"x"}})
    reader = LmdbTables(tmp_path)
    reader._parts[0].env.close()
    with pytest.raises(CorruptArtifact, match=r"part-00000.lmdb: cannot be read.*Verify the release"):
        reader.count(USERS)
    reader.close()
