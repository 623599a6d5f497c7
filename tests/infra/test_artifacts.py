"""Artifacts: files that changed, went or cannot be read are found before anything is made of them."""

from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import Manifest, find_manifest, open_artifact, write_artifact
from infra.errors import CorruptArtifact, StoreError
from infra.store import ObjectStore, open_store
from tests.suites.release_family import DAY, make_family, make_release


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.mark.parametrize("damage", [b"", b"graph 2", b"graph 1 and more"])
def test_a_flipped_truncated_or_longer_file_is_found(store: ObjectStore, damage: bytes) -> None:
    release = make_release(store)
    store.put(f"{release.artifacts['graph'].path}/part", damage)
    with pytest.raises(CorruptArtifact, match=f"has {len(damage)} bytes"):
        open_artifact(store, "graph", release.artifacts["graph"].artifact_id)


def test_a_missing_file_and_a_garbled_manifest_are_found(store: ObjectStore) -> None:
    graph = make_family(store, DAY)["graph"]
    store.delete(f"graph/{graph.artifact_id}/data/part")
    with pytest.raises(CorruptArtifact, match="is missing"):
        open_artifact(store, "graph", graph.artifact_id)
    store.put(f"graph/{graph.artifact_id}/manifest.json", b'{"schema_version": 1')
    with pytest.raises(CorruptArtifact, match="not a manifest"):
        find_manifest(store, "graph", graph.artifact_id)


def test_a_manifest_of_another_version_names_both_numbers(store: ObjectStore) -> None:
    store.put("graph/a/manifest.json", b'{"schema_version": 99}')
    with pytest.raises(CorruptArtifact, match="version 99, this code reads 1"):
        find_manifest(store, "graph", "a")


def test_a_manifest_cannot_name_files_outside_its_artifact(store: ObjectStore) -> None:
    graph = make_family(store, DAY)["graph"]
    key = f"graph/{graph.artifact_id}/manifest.json"
    store.put(key, store.get(key).data.replace(b'"part"', b'"../../part"'))
    with pytest.raises(CorruptArtifact, match="leaves the artifact"):
        find_manifest(store, "graph", graph.artifact_id)


def test_a_data_file_that_may_not_be_read_is_named(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    release = make_release(store)

    open_path = Path.open

    def refuse(path: Path, mode: str) -> Any:
        if path.name == "part":
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StoreError, match=r"data/part: cannot be read: Permission denied\. Give this user the right"):
        open_artifact(store, "graph", release.artifacts["graph"].artifact_id)


def unsealed(store: ObjectStore) -> tuple[Path, Manifest]:
    folder = store.scratch()
    (folder / "data" / ".parts").mkdir(parents=True)
    (folder / "data" / "part").write_bytes(b"1")
    empty = Manifest("graph", "a", "2026-01-01T00:00:00Z", {}, {}, 1, "1", 1, "h", ())
    return folder, empty


def test_files_whose_names_begin_with_a_dot_are_part_of_an_artifact(store: ObjectStore, s3_bucket: str) -> None:
    for kept in (store, open_store(f"s3://{s3_bucket}/store", writable=True)):
        folder, manifest = unsealed(kept)
        (folder / "data" / ".hidden").write_bytes(b"22")
        (folder / "data" / ".parts" / ".0").write_bytes(b"333")
        assert [file.path for file in write_artifact(kept, folder, manifest).files] == [".hidden", ".parts/.0", "part"]
        opened = open_artifact(kept, "graph", "a")
        assert (opened.path / ".parts" / ".0").read_bytes() == b"333"
        (opened.path / ".hidden").write_bytes(b"23")
        if kept is store:
            with pytest.raises(CorruptArtifact, match=r"\.hidden has 2 bytes"):
                open_artifact(kept, "graph", "a")


@pytest.mark.parametrize("target", ["part", ".parts", "nothing"])
def test_a_link_is_refused_rather_than_left_out(store: ObjectStore, target: str) -> None:
    folder, manifest = unsealed(store)
    (folder / "data" / "link").symlink_to(target)
    with pytest.raises(StoreError, match="data/link: is neither a file nor a folder"):
        write_artifact(store, folder, manifest)
    assert find_manifest(store, "graph", "a") is None
