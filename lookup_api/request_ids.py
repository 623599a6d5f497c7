"""The id of a request: the caller's where it is a token, else one of ours."""

import itertools
import re
import secrets

_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestIds:
    """Ids of one process: a random beginning and a count, which costs less than to draw each."""

    def __init__(self) -> None:
        self._begin = secrets.token_hex(5)
        self._next = itertools.count(1).__next__

    def of(self, header: str | None) -> str:
        """The caller's X-Request-Id where it is a token of at most 128 characters, else a new one."""
        if header is not None and _TOKEN.fullmatch(header):
            return header
        return f"{self._begin}{self._next():06x}"
