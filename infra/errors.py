"""Errors that say what went wrong, where, and what would fix it."""

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


class CorruptArtifact(PymkError):
    """Stored bytes do not match their manifest."""
