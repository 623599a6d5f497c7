"""The folder in which a stage keeps unfinished work: one run at a time has it, and takes over what a dead one left."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.file_lock import held, lock_of


@contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """The folder `name` of `parent`, not made here. It stays after a failure, for the next run, and goes with success.

    Where another run is at it, a new folder of this run's own, which goes either way. While the block runs its folder
    is locked, and no cleaning takes it for left behind.
    """
    with held(lock_of(parent / name)) as first:
        if first:
            yield parent / name
            shutil.rmtree(parent / name, ignore_errors=True)
            return
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
        try:
            with held(lock_of(folder)):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
