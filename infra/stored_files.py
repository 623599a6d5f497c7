"""Files of one folder of a store, as a manifest lists them: what they must hold, copied to this machine, verified."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from infra.errors import CorruptArtifact, StoreError
from infra.store import ObjectStore, cache_folder

PARALLEL_BYTES = 32 << 20
"""Files of fewer bytes together are verified one after the other: for the four small files of a model, threads were a
quarter of what opening it took."""


@dataclass(frozen=True)
class FileEntry:
    """One file: its path below its folder, its size in bytes and its sha256 (hex)."""

    path: str
    size_bytes: int
    sha256: str


def entry_of(path: Path, name: str) -> FileEntry | None:
    """What a file holds now, None where there is none."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        return FileEntry(name, path.stat().st_size, digest)
    except OSError as error:
        fix = "Give this user the right to read it, and check the disk."
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}", fix) from error


def entries_below(folder: Path) -> tuple[FileEntry, ...]:
    """Every file below a local folder, by path, those included whose names begin with a dot.

    Raises StoreError for a link or a device: it would name what is not in the folder, and S3 has neither.
    """
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path}: is neither a file nor a folder", "Write a file in its place.")
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(lambda name: _present(folder / name, name), names))


def _present(path: Path, name: str) -> FileEntry:
    entry = entry_of(path, name)
    if entry is None:
        raise StoreError(f"{path}: went while it was read", "Run again, with nobody else at work in that folder.")
    return entry


def verify_entries(folder: Path, entries: Sequence[FileEntry], fix: str) -> None:
    """Raises CorruptArtifact naming a file that is missing, truncated or altered, and the fix."""
    with ThreadPoolExecutor(2) as pool:
        each = pool.map if sum(entry.size_bytes for entry in entries) >= PARALLEL_BYTES else map
        for entry, found in zip(entries, each(lambda e: entry_of(folder / e.path, e.path), entries), strict=True):
            if found != entry:
                was = "is missing" if found is None else f"has {found.size_bytes} bytes, sha256 {found.sha256[:12]}…"
                raise CorruptArtifact(
                    f"{folder / entry.path} {was}, its manifest says {entry.size_bytes} bytes, "
                    f"sha256 {entry.sha256[:12]}…",
                    fix,
                )


def local_files(store: ObjectStore, prefix: str, entries: Sequence[FileEntry]) -> Path:
    """The folder on this machine; a remote store's files are copied into the cache first, those it lacks."""
    here = store.local_folder(prefix)
    if here is not None:
        return here
    folder = cached(store, prefix)
    for entry in entries:
        target = folder / entry.path
        if target.exists() and entry_of(target, entry.path) != entry:
            target.unlink()
        if not target.exists():
            store.download(f"{prefix}/{entry.path}", target)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(store: ObjectStore, prefix: str) -> Path:
    """Where the copy of a folder of a remote store is."""
    return copies_of(store.uri) / prefix


def copies_of(store_uri: str) -> Path:
    """What this machine copied of a remote store, in folders as there."""
    return cache_folder() / "artifacts" / hashlib.sha256(store_uri.rstrip("/").encode()).hexdigest()[:16]


def check_relative(path: str, where: str) -> None:
    """Raises CorruptArtifact for the path of a file that would leave its folder."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise CorruptArtifact(f"{where}: file name {path!r} leaves the artifact")
