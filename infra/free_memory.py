"""How much memory may still be taken: of the machine, or of the container that this process is in."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
TAKEN = ("anon", "kernel", "shmem", "unevictable")
"""Of memory.stat of cgroups 2: what is not given back when others want it."""


def available_memory() -> tuple[int, int]:
    """Bytes free and bytes in all, of this machine or of the container's limit, whichever is less."""
    memory = psutil.virtual_memory()
    try:
        limit = int((CGROUP / "memory.max").read_text())
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        taken = sum(int(stat.get(name, 0)) for name in TAKEN)
    except (OSError, ValueError):  # no cgroups, or `max`
        return memory.available, memory.total
    return min(memory.available, max(0, limit - taken)), min(memory.total, limit)
