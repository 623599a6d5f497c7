"""What the system refuses is told with the file it is about and a way out."""

import errno
import os

import pytest

from infra.errors import explain


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "Free disk space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "right"),
        (errno.EROFS, "read-only"),
        (errno.EISDIR, "name a file"),
        (errno.ENOTDIR, "name a folder"),
    ],
)
def test_the_file_and_the_fix_are_named(number: int, fix: str) -> None:
    said = os.strerror(number)
    told = explain(OSError(number, said, "/data/x"))
    assert told is not None
    assert told.what == f"/data/x: {said}"
    assert fix in told.fix
    unnamed = explain(OSError(number, f"cannot write: {said}"))
    assert unnamed is not None
    assert unnamed.what == f"cannot write: {said}"


def test_of_two_files_the_one_written_is_named() -> None:
    told = explain(OSError(errno.EACCES, "Permission denied", "/from", None, b"/to"))
    assert told is not None
    assert told.what == "/to: Permission denied"


@pytest.mark.parametrize("error", [OSError("odd"), ConnectionResetError(errno.ECONNRESET, "reset")])
def test_any_other_error_is_left_to_its_trace(error: OSError) -> None:
    assert explain(error) is None
