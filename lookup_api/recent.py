"""The small index of a delta release beside that of its base: who joined since the night is found as well."""

from lookup_api.ann import Float32, Found, Nearest, merged
from lookup_api.deadline import Deadline


class WithRecent:
    """A Nearest of two, which it closes. recent: flat, and so quick that it is asked first."""

    def __init__(self, base: Nearest, recent: Nearest) -> None:
        self._base, self._recent = base, recent

    @property
    def missing(self) -> tuple[str, ...]:
        return (*self._base.missing, *self._recent.missing)

    def find(self, query: Float32, k: int, deadline: Deadline) -> Found:
        found = [self._recent.find(query, k, deadline), self._base.find(query, k, deadline)]
        left_out = [name for one in found for name in one.left_out]
        return merged([(one.ids, one.scores) for one in found], k, left_out)

    def close(self) -> None:
        self._recent.close()
        self._base.close()
