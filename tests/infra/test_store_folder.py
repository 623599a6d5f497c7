import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import StoreError, UsageError
from infra.store import ObjectStore, open_store
from infra.store_folder import FolderStore
from tests.suites.object_stores import ObjectStoreSuite


class TestFolderStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(str(tmp_path / "store"), create=True)


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing-here: no such folder\. Check the URI"):
        open_store(str(tmp_path / "nothing-here"))


def test_only_who_writes_is_told_to_make_a_missing_folder(tmp_path: Path) -> None:
    for writable in (False, True):
        with pytest.raises(StoreError) as caught:
            open_store(str(tmp_path / "nothing-here"), writable=writable)
        assert ("make the folder" in str(caught.value)) is writable


@pytest.mark.parametrize("uri", ["gs://bucket/x", "http://host/x", ""])
def test_an_unknown_scheme_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="not a store"):
        open_store(uri)


def test_a_full_disk_says_what_to_do_and_leaves_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore.open(tmp_path)
    store.put("CURRENT", b"old")

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(StoreError, match=r"No space left on device\. Free disk space"):
        store.put("CURRENT", b"new")
    with pytest.raises(StoreError, match=r"No space left on device\. Free disk space"):
        store.upload(_file(tmp_path / "new", b"new"), "CURRENT")
    monkeypatch.undo()
    assert store.get("CURRENT").data == b"old"
    assert list((tmp_path / ".pymk" / "tmp").iterdir()) == [], "half a file takes the space that is missing"


def _file(path: Path, content: bytes = b"content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_linked_folders_and_files_are_listed(tmp_path: Path) -> None:
    _file(tmp_path / "elsewhere" / "day=1" / "a")
    table = tmp_path / "store" / "blocks"
    table.mkdir(parents=True)
    (table / "day=1").symlink_to(tmp_path / "elsewhere" / "day=1")
    (table / "b").symlink_to(tmp_path / "elsewhere" / "day=1" / "a")
    keys = [info.key for info in FolderStore.open(tmp_path / "store").list("blocks/")]
    assert keys == ["blocks/b", "blocks/day=1/a"]


@pytest.mark.parametrize(("to", "said"), [("../nowhere", "is a link to nothing"), (".", "is a link back")])
def test_a_link_that_leads_nowhere_is_named_and_never_left_out(tmp_path: Path, to: str, said: str) -> None:
    _file(tmp_path / "blocks" / "a")
    (tmp_path / "blocks" / "link").symlink_to(to)
    with pytest.raises(StoreError, match=rf"blocks/link: {said}.*emove the link"):
        list(FolderStore.open(tmp_path).list("blocks/"))


def test_a_whole_table_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "blocks").symlink_to("nowhere")
    store = FolderStore.open(tmp_path)
    for what in (lambda: store.folders(""), lambda: list(store.list("blocks/")), lambda: list(store.list(""))):
        with pytest.raises(StoreError, match=r"blocks: is a link to nothing\. Put back"):
            what()


UNREADABLE = """
import os
from pathlib import Path
from infra.errors import PymkError
from infra.releases import ReleaseStore
from infra.store_folder import FolderStore

store = FolderStore(Path("."))  # relative: the folders above the test's are closed to others too
os.setuid(65534)
releases = ReleaseStore(store)
for what in (lambda: list(store.list("blocks/")), lambda: store.get("blocks/a"), lambda: store.exists("blocks/a"),
             lambda: store.put("blocks/b", b""), releases.list, lambda: releases.clean(1)):
    try:
        what()
        print("no error")
    except PymkError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place")
def test_a_folder_that_may_not_be_read_is_named_with_the_right_that_is_missing(tmp_path: Path) -> None:
    """By another user, as nothing is denied to root."""
    for name in ("blocks", "releases"):
        _file(tmp_path / "store" / name / "a").parent.chmod(0)
    (tmp_path / "store" / ".pymk" / "locks").mkdir(parents=True)
    for folder in (tmp_path / "store", tmp_path / "store/.pymk", tmp_path / "store/.pymk/locks"):
        folder.chmod(0o777)
    said = subprocess.run(
        [sys.executable, "-c", UNREADABLE],
        cwd=tmp_path / "store",
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(said) == 6
    for line, name, right in zip(
        said, ["blocks"] * 4 + ["releases"] * 2, ["read", "read", "read", "write", "read", "read"], strict=True
    ):
        assert line.startswith((name, f"./{name}"))
        assert f"Permission denied. Give this user the right to {right} there" in line


def test_a_store_that_is_a_file_says_so(tmp_path: Path) -> None:
    _file(tmp_path / "file")
    for create in (False, True):
        with pytest.raises(StoreError, match=r"file: is a file, not a folder\. Give the folder"):
            open_store(str(tmp_path / "file"), create=create)
    with pytest.raises(StoreError, match=r"below: Not a directory\. A file is where"):
        open_store(str(tmp_path / "file" / "below"), create=True)
    with pytest.raises(StoreError, match=r"file/CURRENT: File exists\. A file is where"):
        FolderStore.open(tmp_path).put("file/CURRENT", b"")
