"""A lake is what it was, or what was written, or refused: never a mix that looks whole."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import Conflict, InputError, StoreError, UsageError
from infra.lake import UNFINISHED, lake_fingerprint, open_lake
from infra.store import ObjectStore, open_store
from jobs.lake_writer import lake_writer


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "lake")
    return f"s3://{request.getfixturevalue('s3_bucket')}/lake"


def fill(lake: str, source: Path, content: bytes, keys: list[str], replace: bool = False) -> None:
    source.write_bytes(content)
    with lake_writer(lake, replace) as write_file:
        for key in keys:
            write_file(key, source)


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key).data for info in store.list("")}


OLD = ["connections/part-00000.parquet", "connections/part-00001.parquet", "profiles/part-00000.parquet"]
NEW = ["connections/part-00000.parquet", "blocks/part-00000.parquet"]


def test_new_tables_take_the_place_of_the_old_and_of_nothing_else(lake: str, tmp_path: Path) -> None:
    fill(lake, tmp_path / "file", b"old", OLD)
    store = open_store(lake)
    store.put("connections/day=1/part.parquet", b"old")
    store.put("notes/mine.txt", b"mine")
    with pytest.raises(UsageError, match="holds tables already: connections, profiles"):
        fill(lake, tmp_path / "file", b"new", NEW)
    fill(lake, tmp_path / "file", b"new", NEW, replace=True)
    found = contents(store)
    assert found.pop("notes/mine.txt") == b"mine"
    assert list(found.values()) == [b"new", b"new"]
    assert {key.partition("/")[0] for key in found} == {"connections", "blocks"}
    assert set(open_lake(lake).tables) == {"connections", "blocks"}
    fill(lake, tmp_path / "file", b"new", NEW, replace=True)
    assert len(contents(store)) == 3, "again in place of those of the same names"


@pytest.mark.parametrize("old", [[], OLD])
def test_a_writer_without_room_leaves_the_lake_as_it_was(
    lake: str, old: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, tmp_path / "file", b"old", old)
    store = open_store(lake)
    before = contents(store)
    written: list[str] = []
    upload = type(store).upload

    def upload_some(self: ObjectStore, path: Path, key: str) -> None:
        if written:
            raise StoreError(f"{key}: {os.strerror(errno.ENOSPC)}")
        with pytest.raises(InputError, match="half written"):
            open_lake(lake)
        upload(self, path, key)
        written.append(key)

    monkeypatch.setattr(type(store), "upload", upload_some)
    with pytest.raises(StoreError, match="No space left"):
        fill(lake, tmp_path / "file", b"new", NEW, replace=True)
    monkeypatch.setattr(type(store), "upload", upload)
    assert len(written) == 1
    assert contents(store) == before
    fill(lake, tmp_path / "file", b"new", NEW, replace=bool(old))
    assert set(contents(store).values()) == {b"new"}


KILLED = """
import os, signal, sys
from pathlib import Path
from infra.store_folder import FolderStore
from jobs.lake_writer import lake_writer

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

with lake_writer(sys.argv[1], True) as write_file:
    write_file("connections/part-00000.parquet", Path(sys.argv[2]))
    if sys.argv[3] == "while it writes":
        killed()
    write_file("blocks/part-00000.parquet", Path(sys.argv[2]))
    FolderStore.delete = killed
"""


@pytest.mark.parametrize("when", ["while it writes", "while it removes"])
def test_what_a_killed_writer_left_is_refused_until_it_is_replaced(tmp_path: Path, when: str) -> None:
    lake, file = str(tmp_path / "lake"), tmp_path / "file"
    fill(lake, file, b"old", OLD)
    done = subprocess.run([sys.executable, "-c", KILLED, lake, str(file), when], check=False)
    assert done.returncode == -signal.SIGKILL
    for read in (open_lake, lake_fingerprint):
        with pytest.raises(InputError, match=r"half written.*--replace"):
            read(lake)
    with pytest.raises(UsageError, match="a writer that was killed left tables"):
        fill(lake, file, b"new", NEW)
    with pytest.raises(StoreError):
        fill(lake, file, b"new", ["connections/x.parquet", "connections"], replace=True)
    assert open_store(lake).exists(UNFINISHED), "a mix stays one when the next writer fails"
    fill(lake, file, b"new", NEW, replace=True)
    assert set(contents(open_store(lake)).values()) == {b"new"}
    assert set(open_lake(lake).tables) == {"connections", "blocks"}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("old", [[], OLD])
def test_a_second_writer_is_told_of_the_first_and_changes_nothing(
    lake: str, old: list[str], replace: bool, tmp_path: Path
) -> None:
    """The second comes before the first has written, where only a lock of the folder can tell, and after it has."""
    file = tmp_path / "file"
    fill(lake, file, b"old", old)
    file.write_bytes(b"first")
    with lake_writer(lake, True) as write_file:
        if "://" not in lake:
            with pytest.raises(Conflict, match="another process is writing it"):
                fill(lake, tmp_path / "other", b"second", NEW, replace)
        write_file(NEW[0], file)
        if "://" not in lake or not replace:  # on S3 nothing tells it from one that was killed, which --replace mends
            with pytest.raises((Conflict, UsageError)):
                fill(lake, tmp_path / "other", b"second", NEW, replace)
        write_file(NEW[1], file)
    assert set(contents(open_store(lake)).values()) == {b"first"}


def test_of_two_writers_that_found_the_lake_empty_one_is_refused_without_a_lock(s3_bucket: str, tmp_path: Path) -> None:
    lake, file = f"s3://{s3_bucket}/lake", tmp_path / "file"
    store = open_store(lake)
    file.write_bytes(b"first")
    with lake_writer(lake, False) as write_file:
        fill(lake, tmp_path / "other", b"second", NEW)
        with pytest.raises(Conflict, match="was at work meanwhile"):
            write_file(OLD[0], file)
    with lake_writer(lake, True) as write_file:
        store.put(UNFINISHED, b"by another writer")
        with pytest.raises(Conflict, match="is at work"):
            write_file(OLD[0], file)
    assert store.get(UNFINISHED).data == b"by another writer"
    store.delete(UNFINISHED)
    assert contents(store) == dict.fromkeys(sorted(NEW), b"second")


def test_a_lake_with_the_mark_of_a_killed_writer_and_no_table_is_refused_too(lake: str, tmp_path: Path) -> None:
    open_store(lake, create=True).put(UNFINISHED, b"")
    with pytest.raises(UsageError, match="a writer that was killed left tables: none that is whole"):
        fill(lake, tmp_path / "file", b"new", NEW)
    fill(lake, tmp_path / "file", b"new", NEW, replace=True)
    assert set(contents(open_store(lake)).values()) == {b"new"}


def test_what_a_linked_folder_of_a_replaced_table_leads_to_stays(tmp_path: Path) -> None:
    lake, file, elsewhere = tmp_path / "lake", tmp_path / "file", tmp_path / "elsewhere"
    fill(str(lake), file, b"old", OLD)
    elsewhere.mkdir()
    (elsewhere / "a.parquet").write_bytes(b"theirs")
    (lake / "connections" / "day=1").symlink_to(elsewhere)
    fill(str(lake), file, b"new", NEW, replace=True)
    assert (elsewhere / "a.parquet").read_bytes() == b"theirs"
    assert set(contents(open_store(str(lake))).values()) == {b"new"}
