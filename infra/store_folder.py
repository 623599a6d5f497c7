"""A folder as an object store.

Conditional puts hold a lock file (`flock`) while they compare and rename, so they are atomic between processes of one
machine and on network file systems that honour `flock`; a killed writer releases its lock with its life.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import Conflict, NotFound, StoreError
from infra.store import ObjectInfo, StoredObject, check_key, remove_stale

INTERNAL = ".pymk"
"""Folder of locks and scratch space inside the store; never listed."""


READ_FIX = "Check the URI: `pymk import` or `pymk sample` makes a lake, `pymk run` a store."


class FolderStore:
    """See infra.store.ObjectStore."""

    conditional_puts = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    @classmethod
    def open(cls, root: Path, *, writable: bool = False, create: bool = False) -> "FolderStore":
        root = root.expanduser().resolve()
        with _explained(f"{root}", READ):
            if root.exists() and not root.is_dir():
                raise StoreError(f"{root}: is a file, not a folder", "Give the folder of the lake or the store.")
            if create:
                root.mkdir(parents=True, exist_ok=True)
            found = root.is_dir()
        if not found:
            raise StoreError(f"{root}: no such folder", "Check the URI, or make the folder." if writable else READ_FIX)
        return cls(root)

    def get(self, key: str) -> StoredObject:
        with _explained(f"{self.uri}/{key}", READ):
            data = self._path(key).read_bytes()
        return StoredObject(data, _etag(data))

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        path = self._path(key)
        with _explained(f"{self.uri}/{key}"), self._locked():
            found = _etag(path.read_bytes()) if path.exists() else None
            if if_absent and found is not None:
                raise Conflict(f"{self.uri}/{key}: exists already")
            if if_match is not None and found != if_match:
                raise Conflict(f"{self.uri}/{key}: changed by another writer (expected {if_match}, found {found})")
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._new_file(path) as new:
                new.write_bytes(data)
        return _etag(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self.root / prefix.rpartition("/")[0]
        with _explained(f"{self.uri}/{prefix}", READ):
            _refuse_dangling(start)
            found = _files_below(start) if start.is_dir() else []
            keyed = sorted((path.relative_to(self.root).as_posix(), path) for path in found)
        for key, path in keyed:
            if key.startswith(prefix):
                with suppress(FileNotFoundError):  # removed since it was listed
                    stat = path.stat()
                    yield ObjectInfo(key, stat.st_size, f"{stat.st_size:x}-{stat.st_mtime_ns:x}", stat.st_mtime)

    def folders(self, prefix: str) -> Sequence[str]:
        folder = self.root / prefix
        with _explained(f"{self.uri}/{prefix}", READ):
            if not folder.is_dir():
                return []
            entries = [path for path in folder.iterdir() if path.name != INTERNAL]
            for path in entries:
                _refuse_dangling(path)
            return sorted(path.name for path in entries if path.is_dir())

    def exists(self, key: str) -> bool:
        with _explained(f"{self.uri}/{key}", READ):
            return self._path(key).is_file()

    def delete(self, key: str) -> None:
        with _explained(f"{self.uri}/{key}"):
            self._path(key).unlink(missing_ok=True)

    def delete_folder(self, prefix: str) -> None:
        path = self._path(prefix.rstrip("/"))
        with _explained(f"{self.uri}/{prefix}"):
            if path.exists():
                doomed = Path(tempfile.mkdtemp(dir=self._internal("tmp")))
                os.replace(path, doomed / path.name)  # gone at once for readers by name
                shutil.rmtree(doomed)

    def upload(self, path: Path, key: str) -> None:
        target = self._path(key)
        with _explained(f"{self.uri}/{key}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._new_file(target) as new:
                shutil.copyfile(path, new)

    def open_local(self, key: str) -> Path:
        path = self._path(key)
        if not self.exists(key):
            raise NotFound(f"{self.uri}/{key}: no such object")
        return path

    def local_folder(self, prefix: str) -> Path | None:
        return self._path(prefix)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(f"{self.uri}/{key}", READ), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            partial = shutil.copyfile(self._path(key), Path(folder) / path.name)
            os.replace(partial, path)

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        with _explained(self.uri):
            lock = (self._internal("locks") / "sole_writer").open("w")
        with lock:
            with _explained(self.uri):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Conflict(
                        f"{self.uri}: another process is writing it", "Wait until that one has ended."
                    ) from None
            yield

    def scratch(self) -> Path:
        with _explained(self.uri):
            folder = Path(tempfile.mkdtemp(dir=self._internal("tmp")))
        folder.chmod(0o755)
        return folder

    def clean_scratch(self, min_age_s: float) -> None:
        remove_stale(self.root / INTERNAL / "tmp", min_age_s)

    def commit_folder(self, folder: Path, prefix: str, last: str, check: Callable[[], None] = lambda: None) -> bool:
        target = self._path(prefix.rstrip("/"))
        with _explained(f"{self.uri}/{prefix}"):
            for path in folder.rglob("*"):
                if path.is_file():
                    _sync_file(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not (target / last).exists():  # half a copy, which no writer of ours leaves
                self.delete_folder(prefix)
            try:
                with self._locked():
                    check()
                    os.rename(folder, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(folder, ignore_errors=True)
                return False
            _sync_folder(target.parent)
        return True

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _internal(self, name: str) -> Path:
        folder = self.root / INTERNAL / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _new_file(self, target: Path) -> Iterator[Path]:
        """A file to write, which becomes `target` once it is whole and on the disk, or is gone."""
        handle, name = tempfile.mkstemp(dir=self._internal("tmp"))
        os.close(handle)
        new = Path(name)
        try:
            yield new
            new.chmod(0o644)
            _sync_file(new)
            os.replace(new, target)
        finally:
            new.unlink(missing_ok=True)
        _sync_folder(target.parent)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._internal("locks") / "put").open("w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as f:
        os.fsync(f.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[Path]:
    """Every file below, links followed. A folder that was removed meanwhile holds nothing.

    Raises StoreError for a link to nothing and for one back to a folder it is in, OSError for an unreadable folder:
    what is left out silently would be missed by nobody. above: device and inode of the folders on the way here.
    """
    try:
        stat = folder.stat()
        with os.scandir(folder) as listed:
            entries = [entry for entry in listed if entry.name != INTERNAL]
    except FileNotFoundError:
        return []
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        raise StoreError(f"{folder}: is a link back to a folder that it is in", "Remove the link.")
    found: list[Path] = []
    for entry in entries:
        if entry.is_dir():
            found += _files_below(folder / entry.name, above | {here})
        else:
            found.append(folder / entry.name)
            _refuse_dangling(found[-1])
    return found


def _refuse_dangling(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise StoreError(f"{path}: is a link to nothing", "Put back what it points to, or remove the link.")


READ, WRITE = "read", "write"
_FIXES = {
    errno.ENOSPC: "Free disk space; nothing that was there before has changed.",
    errno.EDQUOT: "Free disk space or raise the quota; nothing that was there before has changed.",
    errno.EFBIG: "Raise the limit on the size of a file (`ulimit -f`).",
    errno.EROFS: "The file system is read-only.",
    errno.EEXIST: "A file is where a folder must be: move it away.",
    errno.ENOTDIR: "A file is where a folder must be: move it away, or check the URI.",
    errno.EISDIR: "A folder is where a file must be: move it away.",
    errno.EXDEV: "Put a folder of this file system in place of the link.",
    errno.ELOOP: "Remove the link, which leads back to itself.",
}


@contextmanager
def _explained(what: str, right: str = WRITE) -> Iterator[None]:
    """Turns an OSError into a StoreError that names the file and says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what}: no such object") from error
    except OSError as error:
        where = error.filename if right == READ and error.filename else what
        denied = f"Give this user the right to {right} there."
        fix = denied if error.errno in (errno.EACCES, errno.EPERM) else _FIXES.get(error.errno or 0, "")
        raise StoreError(f"{where}: {error.strerror or error}", fix) from error
