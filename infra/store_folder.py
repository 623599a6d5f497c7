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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.errors import Conflict, NotFound, StoreError
from infra.store import ObjectInfo, StoredObject, check_key, remove_stale

INTERNAL = ".pymk"
"""Folder of locks and scratch space inside the store; never listed."""


class FolderStore:
    """See infra.store.ObjectStore."""

    conditional_puts = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    @classmethod
    def open(cls, root: Path, *, create: bool = False) -> "FolderStore":
        root = root.expanduser().resolve()
        with _explained(f"{root}"):
            if create:
                root.mkdir(parents=True, exist_ok=True)
            found = root.is_dir()
        if not found:
            raise StoreError(f"{root}: no such folder", "Check the URI, or make the folder.")
        return cls(root)

    def get(self, key: str) -> StoredObject:
        with _explained(f"{self.uri}/{key}"):
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
            with tempfile.NamedTemporaryFile(dir=self._internal("tmp"), delete=False) as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.chmod(f.name, 0o644)
            os.replace(f.name, path)
            _sync_folder(path.parent)
        return _etag(data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self.root / prefix.rpartition("/")[0]
        found = []
        with _explained(f"{self.uri}/{prefix}"):
            for folder, names, files in os.walk(start, onerror=_refuse_unreadable):
                names[:] = [n for n in names if n != INTERNAL]
                found += [Path(folder) / f for f in files]
        keyed = sorted((path.relative_to(self.root).as_posix(), path) for path in found)
        for key, path in keyed:
            if key.startswith(prefix):
                with suppress(FileNotFoundError):  # removed since it was listed
                    stat = path.stat()
                    yield ObjectInfo(key, stat.st_size, f"{stat.st_size:x}-{stat.st_mtime_ns:x}", stat.st_mtime)

    def folders(self, prefix: str) -> Sequence[str]:
        folder = self.root / prefix
        with _explained(f"{self.uri}/{prefix}"):
            if not folder.is_dir():
                return []
            return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != INTERNAL)

    def exists(self, key: str) -> bool:
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
            handle, name = tempfile.mkstemp(dir=self._internal("tmp"))
            os.close(handle)
            shutil.copyfile(path, name)
            os.chmod(name, 0o644)
            os.replace(name, target)

    def open_local(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"{self.uri}/{key}: no such object")
        return path

    def local_folder(self, prefix: str) -> Path | None:
        return self._path(prefix)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(f"{self.uri}/{key}"), tempfile.TemporaryDirectory(dir=path.parent) as folder:
            partial = shutil.copyfile(self._path(key), Path(folder) / path.name)
            os.replace(partial, path)

    def scratch(self) -> Path:
        with _explained(self.uri):
            folder = Path(tempfile.mkdtemp(dir=self._internal("tmp")))
        folder.chmod(0o755)
        return folder

    def clean_scratch(self, min_age_s: float) -> None:
        remove_stale(self.root / INTERNAL / "tmp", min_age_s)

    def commit_folder(self, folder: Path, prefix: str, last: str) -> bool:
        target = self._path(prefix.rstrip("/"))
        with _explained(f"{self.uri}/{prefix}"):
            for path in folder.rglob("*"):
                if path.is_file():
                    _sync_file(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not (target / last).exists():  # half a copy, which no writer of ours leaves
                self.delete_folder(prefix)
            try:
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


def _refuse_unreadable(error: OSError) -> None:
    """A folder that was removed meanwhile holds nothing; one that may not be read would only look empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns an OSError into a StoreError that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what}: no such object") from error
    except OSError as error:
        fixes = {
            errno.ENOSPC: "Free disk space or run `pymk release clean`; the current release is untouched.",
            errno.EDQUOT: "Free disk space or raise the quota; the current release is untouched.",
            errno.EFBIG: "Raise the limit on the size of a file (`ulimit -f`).",
            errno.EACCES: "Give this user the right to read and write there.",
            errno.EROFS: "The file system is read-only.",
        }
        raise StoreError(f"{what}: {error.strerror or error}", fixes.get(error.errno or 0, "")) from error
