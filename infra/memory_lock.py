"""Keeps a file in memory: its pages are read once, and the system does not take them back (mlock of POSIX.1-2001).

A page that nobody read for a while is what a system short of memory, or one that reclaims it ahead of need, gives up
first; where keys are asked for evenly that is most of a large file, and each read then waits for the disk.
"""

import ctypes
import mmap
import os
import resource
from pathlib import Path

import numpy as np

from infra.errors import PymkError
from infra.free_memory import available_memory

SPARE_SHARE = 0.1
"""Of the free memory, which is left to everything else."""


class NotLocked(PymkError):
    """The file stays readable; its pages come and go as the system likes."""


class MemoryLock:
    """The pages of a file, held until closed. size_bytes: of the file; processes that lock the same file share them."""

    def __init__(self, path: Path) -> None:
        """Reads all of it. Raises NotLocked where there is too little memory or too low a limit, and OSError."""
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._pages: np.ndarray[tuple[int], np.dtype[np.uint8]] | None = np.frombuffer(self._map, np.uint8)
        self.size_bytes = len(self._map)
        try:
            self._lock(path)
        except BaseException:
            self.close()
            raise

    def _lock(self, path: Path) -> None:
        assert self._pages is not None
        start, size = ctypes.c_void_p(self._pages.ctypes.data), ctypes.c_size_t(self.size_bytes)
        free = available_memory()[0] * (1 - SPARE_SHARE)
        missing = self.size_bytes - self._resident_bytes(path)
        if missing > free:
            raise NotLocked(
                f"{path}: {missing >> 20:,} MiB of it are not in memory, and {int(free) >> 20:,} MiB may be taken",
                "Give the machine more memory, or turn api.lock_tables off.",
            )
        _raise_limit()
        if _LIBC.mlock(start, size):
            why = os.strerror(ctypes.get_errno())
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            most = "any number of" if limit == resource.RLIM_INFINITY else f"{limit >> 20:,}"
            raise NotLocked(
                f"{path}: mlock of {self.size_bytes >> 20:,} MiB: {why}; this process may lock {most} MiB",
                "Raise the limit (ulimit -l, LimitMEMLOCK= of systemd, ulimits.memlock of a container), "
                "or turn api.lock_tables off.",
            )

    def _resident_bytes(self, path: Path) -> int:
        """Of the file, what is in memory already: the system tells that to its owner and to who may write it alone."""
        assert self._pages is not None
        if not (os.access(path, os.W_OK) or path.stat().st_uid == os.geteuid()):
            return 0
        found = np.zeros(-(-self.size_bytes // mmap.PAGESIZE), np.uint8)
        if _LIBC.mincore(
            ctypes.c_void_p(self._pages.ctypes.data),
            ctypes.c_size_t(self.size_bytes),
            ctypes.c_void_p(found.ctypes.data),
        ):
            return 0
        return int((found & 1).sum()) * mmap.PAGESIZE

    def close(self) -> None:
        """Unmapping unlocks."""
        self._pages = None
        self._map.close()


_LIBC = ctypes.CDLL(None, use_errno=True)


def _raise_limit() -> None:
    """To what this process may have without asking anybody."""
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (most, most))
