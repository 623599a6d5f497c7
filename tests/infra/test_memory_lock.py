"""A file that is locked in memory stays there, and what cannot be locked is said with what would help."""

import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.memory_lock import MemoryLock, NotLocked

SIZE = 3 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.write_bytes(b"x" * SIZE)
    return path


def locked_bytes() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")]
    return int(line.split()[1]) << 10


def test_all_pages_are_locked_until_it_is_closed(file: Path) -> None:
    before = locked_bytes()
    lock = MemoryLock(file)
    assert lock.size_bytes == SIZE
    assert locked_bytes() - before == SIZE
    lock.close()
    assert locked_bytes() == before


def test_what_does_not_fit_into_free_memory_is_not_tried(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = locked_bytes()
    known = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: known._replace(available=0))
    monkeypatch.setattr(MemoryLock, "_resident_bytes", lambda self, path: SIZE - (2 << 20))
    with pytest.raises(
        NotLocked, match=r"part: 2 MiB of it are not in memory, and 0 MiB may be taken. Give the machine"
    ):
        MemoryLock(file)
    assert locked_bytes() == before


def test_what_is_in_memory_already_needs_no_more(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.read_bytes()
    known = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: known._replace(available=0))
    MemoryLock(file).close()


LIMITED = """
import ctypes, os, resource, sys
from pathlib import Path
from infra.memory_lock import MemoryLock, NotLocked
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    MemoryLock(Path(sys.argv[1]))
except NotLocked as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_MEMLOCK"), reason="no such limit here")
def test_a_limit_of_the_system_is_named_with_its_remedies(file: Path) -> None:
    code = LIMITED if psutil.Process().uids().real == 0 else LIMITED.replace("os.setgroups", "#")
    for folder in (file, *file.parents[:3]):
        folder.chmod(0o755)
    told = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert (
        "mlock of 3 MiB: Cannot allocate memory; this process may lock 1 MiB. Raise the limit (ulimit -l" in told.stdout
    )
