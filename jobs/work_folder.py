"""The folder in which a stage keeps unfinished work: one run at a time has it, and takes over what a dead one left."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """The folder `name` of `parent`, not made here. It stays after a failure, for the next run, and goes with success.

    Where another run is at it, a new folder of this run's own, which goes either way. The lock is a file beside the
    folder that the system unlocks with the process, so that a killed run holds nothing.
    """
    lock = _locked(parent / f"{name}.lock")
    if lock is None:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        yield parent / name
        shutil.rmtree(parent / name, ignore_errors=True)
    finally:
        (parent / f"{name}.lock").unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path) -> int | None:
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
