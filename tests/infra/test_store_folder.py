import errno
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
    monkeypatch.undo()
    assert store.get("CURRENT").data == b"old"
