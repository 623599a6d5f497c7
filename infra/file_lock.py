"""Locks of files that the system lets go of with the process: a killed holder holds nothing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".lock"


def lock_of(entry: Path) -> Path:
    """The lock of a file or folder: a file beside it."""
    return entry.with_name(f"{entry.name}{SUFFIX}")


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """A block that holds the lock, whose file is gone afterwards; False where another holds it or nothing locks."""
    handle = _taken(lock)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _taken(path: Path) -> int | None:
    """A handle that holds the lock, None where another has it or the file system locks nothing."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        if _is_still(path, handle):
            return handle
        os.close(handle)  # it was unlinked between the opening and the locking


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
