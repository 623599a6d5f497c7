"""The object store: a folder or an S3 bucket behind one protocol."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from infra.errors import UsageError
from infra.file_lock import SUFFIX, held, lock_of


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. etag changes whenever the content does; modified_s: seconds since 1970."""

    key: str
    size_bytes: int
    etag: str
    modified_s: float


@dataclass(frozen=True)
class StoredObject:
    data: bytes
    etag: str


class ObjectStore(Protocol):
    """Keys are `/`-separated relative paths. Errors: NotFound, Conflict, and StoreError for all else.

    A conditional put is atomic: of several writers with the same condition exactly one wins.
    `conditional_puts` is false where the endpoint was seen to ignore conditions; nothing may be published there.
    """

    uri: str
    conditional_puts: bool

    def get(self, key: str) -> StoredObject: ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Stores data and returns its etag. Raises Conflict when the condition does not hold."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order."""
        ...

    def folders(self, prefix: str) -> Sequence[str]:
        """Names of the folders directly below `prefix` (which ends in `/`, or is empty for the root), sorted."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        ...

    def delete_folder(self, prefix: str) -> None:
        """Removes every object below `prefix`, which ends in `/`."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Stores a local file, in parts where it is large."""
        ...

    def open_local(self, key: str) -> Path:
        """A local file with the object's content: the object itself or a cached copy of this version."""
        ...

    def local_folder(self, prefix: str) -> Path | None:
        """The folder of `prefix` where the store is a folder; None where files must be downloaded."""
        ...

    def download(self, key: str, path: Path) -> None:
        """Copies an object to a local file, which appears whole or not at all."""
        ...

    def sole_writer(self) -> AbstractContextManager[None]:
        """A block in which no other process of the machine holds the store. Raises Conflict where one does.

        Where nothing tells a killed holder from one at work, as on S3, nobody is kept out.
        """
        ...

    def scratch(self) -> Path:
        """A new empty local folder, on the same file system as the store where that is a folder."""
        ...

    def clean_scratch(self, min_age_s: float) -> None:
        """Removes scratch folders that nobody locked or wrote to for `min_age_s` seconds: what killed writers left."""
        ...

    def commit_folder(self, folder: Path, prefix: str, last: str, check: Callable[[], None] = lambda: None) -> bool:
        """Moves a local folder to `prefix` so that the file `last` appears last; false when another writer was first.

        A reader that sees `last` sees every other file. The local folder is gone afterwards. check: called just before
        `last` appears, to raise what stops it; where the store is a folder no conditional put comes between the two.
        """
        ...


def open_store(uri: str, *, writable: bool = False, create: bool = False) -> ObjectStore:
    """Opens `s3://bucket/prefix` or a folder (a path or `file://`).

    writable: probes whether the endpoint honours conditional puts. create: makes a missing folder.
    Raises UsageError for a URI that names no store and StoreError for one that cannot be reached.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3" and not parts.netloc:
        raise UsageError(f"{uri}: names no bucket", "Write s3://bucket/prefix.")
    if parts.scheme == "s3":
        from infra.store_s3 import S3Store

        return S3Store.open(uri, bucket=parts.netloc, prefix=parts.path.strip("/"), writable=writable)
    if folder := folder_or_none(uri):
        from infra.store_folder import FolderStore

        return FolderStore.open(folder, writable=writable, create=create)
    raise UsageError(f"{uri!r}: not a store", "Give a folder or s3://bucket/prefix.")


def folder_of(uri: str) -> Path:
    """The folder that a path or `file://` names; `~` is the user's own."""
    parts = urlsplit(uri)
    return Path(parts.path if parts.scheme else uri).expanduser()


def folder_or_none(uri: str) -> Path | None:
    """folder_of, None for a URI that names something else than a folder."""
    parts = urlsplit(uri)
    return folder_of(uri) if parts.scheme in ("", "file") and parts.path else None


def check_key(key: str) -> str:
    """The key itself. Raises UsageError for one that could leave the store (`..`, absolute, empty parts, NUL)."""
    parts = key.split("/")
    if not key or "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise UsageError(f"{key!r}: not an object key", "Use relative names without '..'.")
    return key


def cache_folder() -> Path:
    """Local cache of remote objects: PYMK_CACHE_DIR, else the user's cache folder."""
    base = os.environ.get("PYMK_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pymk"
    return Path(base)


def remove_stale(folder: Path, min_age_s: float) -> None:
    """Removes the entries of `folder` in which nothing changed for `min_age_s` seconds, but none that is locked."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _age_s(entry) < min_age_s:
            continue
        with held(entry if entry.suffix == SUFFIX else lock_of(entry)) as ours:  # a lock is removed by letting go of it
            if ours and entry.suffix != SUFFIX:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)


def _age_s(entry: Path) -> float:
    """Seconds since something changed in it."""
    inside = [entry, *entry.rglob("*")] if entry.is_dir() else [entry]
    return time.time() - max((p.stat().st_mtime for p in inside if p.exists()), default=0.0)
