"""No process of a command outlives it, its starter, or a kill of either."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest


def tree(command: list[str], grace_s: float = 0.5, **options: object) -> "subprocess.Popen[bytes]":
    code = f"import sys; from jobs.process_tree import run; sys.exit(run(sys.argv[1:], 0, {grace_s}))"
    return subprocess.Popen([sys.executable, "-c", code, *command], stdin=subprocess.PIPE, **options)  # type: ignore[call-overload]


def until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Waits while the process runs; the suite's timeout ends it otherwise."""
    while not holds():
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stubborn(tmp_path: Path) -> tuple[list[str], Callable[[], list[int]]]:
    """A command of two processes that ignore SIGTERM, and their ids once both run."""
    script, ids = tmp_path / "stubborn.py", tmp_path / "ids"
    script.write_text(
        textwrap.dedent(
            """
            import os, signal, subprocess, sys, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if len(sys.argv) == 2:
                subprocess.Popen([sys.executable, __file__, sys.argv[1], "leaf"], start_new_session=True)
            with open(sys.argv[1], "a") as file:
                print(os.getpid(), file=file)
            time.sleep(600)
            """
        )
    )

    def running() -> list[int]:
        return [int(line) for line in ids.read_text().split()] if ids.exists() else []

    return [sys.executable, str(script), str(ids)], running


def test_the_exit_code_and_output_are_the_commands() -> None:
    process = tree([sys.executable, "-c", "print('made'); raise SystemExit(3)"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read() == b"made\n"
    assert process.wait() == 3


def test_a_command_that_a_signal_ends_says_which() -> None:
    assert tree([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]).wait() == 128 + signal.SIGKILL


@pytest.mark.parametrize("way", ["SIGTERM", "the starter is gone"])
def test_all_processes_end_even_those_that_ignore_sigterm(
    way: str, stubborn: tuple[list[str], Callable[[], list[int]]]
) -> None:
    command, running = stubborn
    process = tree(command)
    until(lambda: len(running()) == 2, process)
    if way == "SIGTERM":
        process.terminate()
    else:
        assert process.stdin is not None
        process.stdin.close()
    assert process.wait() == 128 + signal.SIGTERM
    assert not any(runs(pid) for pid in running())


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    leave = f"""
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(told)!r}, "w").write(str(left.pid))
"""
    assert tree([sys.executable, "-c", leave]).wait() == 0
    assert not runs(int(told.read_text()))


def test_a_starter_that_is_killed_takes_the_command_with_it(
    stubborn: tuple[list[str], Callable[[], list[int]]], tmp_path: Path
) -> None:
    command, running = stubborn
    starter = f"""
import subprocess, sys
code = "import sys; from jobs.process_tree import run; run(sys.argv[1:], 0, 0.5)"
tree = subprocess.Popen([sys.executable, "-c", code, *{command!r}], stdin=subprocess.PIPE, start_new_session=True)
open({str(tmp_path / "tree")!r}, "w").write(str(tree.pid))
tree.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", starter], env=os.environ | {"PYTHONPATH": os.getcwd()})
    until(lambda: len(running()) == 2, process)
    watcher = psutil.Process(int((tmp_path / "tree").read_text()))
    process.kill()
    process.wait()
    psutil.wait_procs([watcher])
    assert not any(runs(pid) for pid in running())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_kill_of_the_watcher_itself_ends_the_command(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    process = tree([sys.executable, "-c", code])
    until(lambda: told.exists() and bool(told.read_text()), process)
    command = psutil.Process(int(told.read_text()))
    process.kill()
    process.wait()
    psutil.wait_procs([command])
    assert not runs(command.pid)
