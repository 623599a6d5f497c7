"""What every object store must do; run by each implementation's test module, which provides the fixture `store`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import Conflict, NotFound, UsageError
from infra.store import ObjectStore


class ObjectStoreSuite:
    def test_put_then_get_returns_the_bytes_and_the_etag_of_the_put(self, store: ObjectStore) -> None:
        etag = store.put("a/b.json", b"one")
        assert store.get("a/b.json") == type(store.get("a/b.json"))(b"one", etag)

    def test_a_missing_object_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            store.get("nowhere")
        with pytest.raises(NotFound):
            store.open_local("nowhere")
        assert not store.exists("nowhere")

    def test_an_exclusive_put_has_one_winner_of_many(self, store: ObjectStore) -> None:
        def attempt(number: int) -> bool:
            try:
                store.put("pointer", str(number).encode(), if_absent=True)
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, range(8)))
        assert sum(won) == 1
        assert store.get("pointer").data == str(won.index(True)).encode()

    def test_a_put_over_a_changed_object_loses_and_leaves_it(self, store: ObjectStore) -> None:
        old = store.put("pointer", b"1")
        store.put("pointer", b"2", if_match=old)
        with pytest.raises(Conflict):
            store.put("pointer", b"3", if_match=old)
        assert store.get("pointer").data == b"2"

    def test_a_conditional_put_over_nothing_loses(self, store: ObjectStore) -> None:
        with pytest.raises((Conflict, NotFound)):
            store.put("pointer", b"1", if_match='"0123"')
        assert not store.exists("pointer")

    def test_list_is_in_key_order_and_by_prefix(self, store: ObjectStore) -> None:
        for key in ("b/2", "a/1", "b/10", "bc/1"):
            store.put(key, key.encode())
        assert [i.key for i in store.list("b/")] == ["b/10", "b/2"]
        assert [(i.key, i.size_bytes) for i in store.list("")] == [("a/1", 3), ("b/10", 4), ("b/2", 3), ("bc/1", 4)]

    def test_an_etag_changes_with_the_content(self, store: ObjectStore) -> None:
        store.put("a/1", b"one")
        before = next(iter(store.list("a/"))).etag
        store.put("a/1", b"three")
        assert next(iter(store.list("a/"))).etag != before

    def test_folders_are_the_next_level_only(self, store: ObjectStore) -> None:
        for key in ("a/x/1", "a/y/1", "b/z", "top"):
            store.put(key, b"")
        assert list(store.folders("")) == ["a", "b"]
        assert list(store.folders("a/")) == ["x", "y"]
        assert list(store.folders("none/")) == []

    def test_delete_is_idempotent_and_a_folder_goes_whole(self, store: ObjectStore) -> None:
        for key in ("a/x/1", "a/x/2", "a/y"):
            store.put(key, b"")
        store.delete("a/y")
        store.delete("a/y")
        store.delete_folder("a/x/")
        store.delete_folder("a/x/")
        assert list(store.list("")) == []

    def test_upload_and_open_local_round_trip(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"x" * 100_000)
        store.upload(source, "deep/file")
        assert store.open_local("deep/file").read_bytes() == source.read_bytes()
        source.write_bytes(b"y")
        store.upload(source, "deep/file")
        assert store.open_local("deep/file").read_bytes() == b"y"

    def test_download_copies_whole_files(self, store: ObjectStore, tmp_path: Path) -> None:
        store.put("a/file", b"content")
        store.download("a/file", tmp_path / "new" / "copy")
        assert (tmp_path / "new" / "copy").read_bytes() == b"content"
        with pytest.raises(NotFound):
            store.download("a/none", tmp_path / "none")
        assert [p.name for p in tmp_path.rglob("*") if p.is_file() and "none" in p.name] == []

    def test_a_committed_folder_is_whole_and_the_second_writer_loses(self, store: ObjectStore) -> None:
        for content, won in ((b"first", True), (b"second", False)):
            folder = store.scratch()
            (folder / "data").mkdir()
            (folder / "data" / "part").write_bytes(content)
            (folder / "manifest.json").write_bytes(content)
            assert store.commit_folder(folder, "kind/id", "manifest.json") is won
            assert not folder.exists()
        assert store.get("kind/id/data/part").data == b"first"
        assert store.get("kind/id/manifest.json").data == b"first"

    def test_half_a_folder_without_its_last_file_is_replaced(self, store: ObjectStore) -> None:
        store.put("kind/id/data/part", b"half")
        folder = store.scratch()
        (folder / "data").mkdir()
        (folder / "data" / "part").write_bytes(b"whole")
        (folder / "manifest.json").write_bytes(b"{}")
        assert store.commit_folder(folder, "kind/id", "manifest.json")
        assert store.get("kind/id/data/part").data == b"whole"

    def test_scratch_is_invisible_and_stale_scratch_is_removed(self, store: ObjectStore) -> None:
        folder = store.scratch()
        (folder / "half").write_bytes(b"x")
        assert list(store.list("")) == []
        store.clean_scratch(3600)
        assert folder.exists()
        store.clean_scratch(0)
        assert not folder.exists()

    @pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../b", "", "a/\0b", "a\\b", "."])
    def test_a_key_that_could_leave_the_store_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(UsageError):
            store.put(key, b"")
        with pytest.raises(UsageError):
            store.get(key)
