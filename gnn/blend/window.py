"""Sliding windows: a window of w counts the candidate itself, so it looks back at the last w - 1 picks."""


def checked_window(window: int | None) -> int | None:
    """None, all picks, or at least 1, the candidate alone."""
    if window is not None and window < 1:
        raise ValueError(f"window: {window} is less than 1, and the candidate itself counts")
    return window


def reach_of(window: int | None, picks: int) -> int:
    """How many picks back it looks in a list of `picks`."""
    return max(0, picks - 1) if window is None else min(window, max(1, picks)) - 1
