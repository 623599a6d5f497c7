"""Errors that say what went wrong, where, and what would fix it."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `pymk` command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    GATE_REFUSED = 3


class PymkError(Exception):
    """A failure that a person can act on: `what` happened (and where), and the `fix`, if one is known."""

    exit_code = ExitCode.FAILED

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}. {fix}" if fix else what)
        self.what = what
        self.fix = fix


class UsageError(PymkError):
    """The command, a setting or an argument is wrong."""

    exit_code = ExitCode.USAGE


class InputError(PymkError):
    """The lake cannot be used as it is."""


class GateRefused(PymkError):
    """A gate refused to go on; nothing was published."""

    exit_code = ExitCode.GATE_REFUSED


class StoreError(PymkError):
    """The object store failed or cannot be reached."""


class NotFound(StoreError):
    """No such object."""


class Conflict(StoreError):
    """A conditional put lost: the object is not what the writer expected."""


class Fenced(StoreError):
    """A lease has passed to another while its holder gave no sign of life: the holder may write no more."""


class CorruptArtifact(PymkError):
    """Stored bytes do not match their manifest."""


NO_ROOM = {
    errno.ENOSPC: "Free disk space; the current release is untouched.",
    errno.EDQUOT: "Free disk space or raise the quota; the current release is untouched.",
    errno.EFBIG: "Raise the limit on the size of a file (`ulimit -f`); the current release is untouched.",
}
"""Error numbers of a write for which there is no room, each with its fix."""

_WRONG_PLACE = {
    errno.EACCES: "Give this user the right to it, or name another place.",
    errno.EPERM: "Give this user the right to it, or name another place.",
    errno.EROFS: "The file system is read-only: name another place.",
    errno.EISDIR: "That is a folder: name a file.",
    errno.ENOTDIR: "That is a file: name a folder.",
}


def explain(error: OSError) -> PymkError | None:
    """What the system refused and the fix, or None for an error that says nothing about the user's files."""
    fix = NO_ROOM.get(error.errno or 0) or _WRONG_PLACE.get(error.errno or 0)
    if not fix:
        return None
    said = error.strerror or str(error)
    return PymkError(f"{_path_of(error)}: {said}" if error.filename else said, fix)


def _path_of(error: OSError) -> str:
    """The file, or for a call with two of them the one written."""
    path = error.filename2 or error.filename
    return path.decode(errors="backslashreplace") if isinstance(path, bytes) else str(path)
