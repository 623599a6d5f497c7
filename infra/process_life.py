"""Names of processes that tell, on the machine that they ran on, whether one is gone."""

import os
from pathlib import Path

_PROC = Path("/proc")
_ENDED = ("Z", "X")
"""States of a process that has ended though nobody asked how."""


def this_process() -> str:
    """`machine/process id/start`, where machine is this boot and this namespace of process ids; empty if unknown."""
    machine, started = _machine(), _started(os.getpid())
    return f"{machine}/{os.getpid()}/{started}" if machine and started else ""


def is_gone(process: str) -> bool:
    """Whether a process that `this_process` named has surely ended: false for one of another machine."""
    machine, _, number = process.partition("/")
    pid, _, started = number.partition("/")
    return bool(machine) and machine == _machine() and pid.isdigit() and _started(int(pid)) != started


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process began, in ticks since the boot; empty for one that is not there or has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _ENDED else fields[19]
