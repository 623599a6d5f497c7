"""Runs a command whose processes all end with it, and with whoever started it, however that one ends.

`python -m jobs.process_tree COMMAND …`: standard input is the line to the starter. When it closes, as it does where the
starter is killed, or at SIGTERM, every process of the command gets SIGTERM, and GRACE_S seconds later SIGKILL. What the
command leaves behind when it ends by itself goes the same way. The exit code is the command's, 128 + N where signal N
ended it.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import psutil

GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL: enough to remove scratch folders and let go of locks."""

_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36
"""See prctl(2): what the command gets where this process is killed; orphans become this process's children, so that
none of them is out of sight."""

_C = ctypes.CDLL(None) if sys.platform == "linux" else None


def run(command: Sequence[str], watched: int, grace_s: float = GRACE_S) -> int:
    """Runs the command until it ends, or until the file descriptor `watched` closes or SIGTERM comes."""
    _adopt_orphans()
    news, tell = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(tell, b"."))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent)
    threading.Thread(target=lambda: (process.wait(), os.write(tell, b".")), daemon=True).start()
    while news not in (ready := select.select([watched, news], [], [])[0]) and os.read(watched, 4096):
        pass
    code = process.poll() if news in ready else None
    end_children(grace_s)
    if code is None:
        return 128 + signal.SIGTERM
    return code if code >= 0 else 128 - code


def end_children(grace_s: float) -> None:
    """Ends every process below this one: SIGTERM, then SIGKILL for what is left after `grace_s` seconds."""
    found = psutil.Process().children(recursive=True)
    _send(found, signal.SIGTERM)
    psutil.wait_procs(found, timeout=grace_s)
    while left := _alive():  # those that were started meanwhile too
        _send(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=1)


def _alive() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _runs(child)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _adopt_orphans() -> None:
    _prctl(_SET_CHILD_SUBREAPER, 1)


def _end_with_parent() -> None:
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _prctl(what: int, value: int) -> None:
    """Linux alone has it; elsewhere only a kill of this very process leaves something behind."""
    if _C is not None:
        _C.prctl(what, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], sys.stdin.fileno()))
