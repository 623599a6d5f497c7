"""When a request must have its answer: one instant, handed down to whatever works for it.

The clock is monotonic: a wall clock that jumps neither ends a request nor keeps one alive.
"""

import time

from infra.errors import PymkError


class TooLate(PymkError):
    """The time that a step was given is over."""


class Deadline:
    """An instant of the monotonic clock, in seconds."""

    __slots__ = ("at_s",)

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at_s - time.monotonic()

    def within(self, budget_s: float) -> "Deadline":
        """This instant, or the end of a step's own budget where that is sooner."""
        return Deadline(min(self.at_s, time.monotonic() + budget_s))

    def check(self, step: str) -> None:
        """Raises TooLate, naming the step that would come next, when the time is over."""
        over = -self.left_s
        if over >= 0:
            raise TooLate(f"no time left for {step}, by {over * 1e3:.1f} ms")
