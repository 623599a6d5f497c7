"""SIGTERM, by which schedulers and service managers end a command, as an exception: what is held is given back."""

import signal
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""What shells say of a command that SIGTERM ended."""


class Terminated(SystemExit):
    """The process was told to end. Nothing but the end of the process catches it."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def unwind_at_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread, once: a second one would cut short what it began."""
    signal.signal(signal.SIGTERM, _unwind)


def _unwind(number: int, frame: FrameType | None) -> None:
    signal.signal(number, _pass_over)
    raise Terminated


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN: a command that is started during the clean-up would inherit that."""
