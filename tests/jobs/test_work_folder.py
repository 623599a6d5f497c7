"""Unfinished work belongs to one run at a time, and to the next one once that is dead."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import PymkError
from infra.store import remove_stale
from jobs.work_folder import work_folder

NAME = "encoder-20260101T000000Z-0123456789abcdef"


def test_a_second_run_at_the_same_time_has_a_folder_of_its_own(tmp_path: Path) -> None:
    with work_folder(tmp_path, NAME) as first:
        first.mkdir()
        (first / "state").write_text("of the first")
        with work_folder(tmp_path, NAME) as second:
            assert second != first
            assert not list(second.iterdir())
            (second / "state").write_text("of the second")
        assert not second.exists()
        assert (first / "state").read_text() == "of the first"
    assert not list(tmp_path.iterdir())


def test_the_first_to_finish_leaves_the_others_folder_alone(tmp_path: Path) -> None:
    first, second = work_folder(tmp_path, NAME), work_folder(tmp_path, NAME)
    first.__enter__()
    other = second.__enter__()
    (other / "state").write_text("unfinished")
    first.__exit__(None, None, None)
    assert (other / "state").read_text() == "unfinished"
    with work_folder(tmp_path, NAME) as third:
        assert third == tmp_path / NAME
    second.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


def test_what_a_failed_run_left_is_the_next_ones(tmp_path: Path) -> None:
    def fail() -> None:
        with work_folder(tmp_path, NAME) as folder:
            folder.mkdir()
            (folder / "state").write_text("half")
            raise PymkError("stopped")

    with pytest.raises(PymkError, match="stopped"):
        fail()
    with work_folder(tmp_path, NAME) as again:
        assert (again / "state").read_text() == "half"
    assert not again.exists()


def test_cleaning_leaves_alone_what_a_run_is_at_however_long_nothing_changes(tmp_path: Path) -> None:
    with work_folder(tmp_path, NAME) as first, work_folder(tmp_path, NAME) as second:
        first.mkdir()
        remove_stale(tmp_path, 0)
        assert first.is_dir()
        assert second.is_dir()
        with work_folder(tmp_path, NAME) as third:
            assert third not in (first, second)


HOLD_AND_DIE = """
import os, signal, sys
from pathlib import Path
from jobs.work_folder import work_folder
with work_folder(Path(sys.argv[1]), sys.argv[2]) as folder:
    folder.mkdir()
    (folder / "state").write_text("of the dead")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path), NAME], check=False)
    assert killed.returncode == -signal.SIGKILL
    with work_folder(tmp_path, NAME) as folder:
        assert (folder / "state").read_text() == "of the dead"
    assert not list(tmp_path.iterdir())


def test_cleaning_takes_what_a_dead_run_left(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path), NAME], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    remove_stale(tmp_path, 3600)
    assert len(list(tmp_path.iterdir())) == 2
    remove_stale(tmp_path, 0)
    assert not list(tmp_path.iterdir())
