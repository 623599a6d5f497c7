"""The serving tables of a delta over those of its base: rows of the delta first, all others from the base.

A delta holds, for each user whose rows differ, their rows of every table; an empty value stands for a row that is gone.
Of inactive users it holds their bars.
"""

from collections.abc import Sequence

from infra.blobs import decode_ranking
from infra.errors import CorruptArtifact
from infra.kv import BARS, META, USERS, KeyValueReader
from infra.serving_meta import CHANGED_KEY, DEPARTED_KEY, INACTIVE_KEY, POPULAR_IDS_KEY, POPULAR_KEY, decode_ids


class OverlayTables:
    """A KeyValueReader of two, which it closes. changed: ids of users whose rows are the delta's; departed: of those
    who left since the base.

    Raises CorruptArtifact where the delta was not made for this base.
    """

    def __init__(self, delta: KeyValueReader, base: KeyValueReader) -> None:
        self._delta, self._base = delta, base
        self.changed = frozenset(decode_ids(delta.get(META, CHANGED_KEY)).tolist())
        self.departed = frozenset(decode_ids(delta.get(META, DEPARTED_KEY)).tolist())
        self._barred = self.changed.union(decode_ids(delta.get(META, INACTIVE_KEY) or b"").tolist())
        popular = base.get(META, POPULAR_KEY)
        if popular is None or decode_ranking(popular).ids() != decode_ids(delta.get(META, POPULAR_IDS_KEY)).tolist():
            raise CorruptArtifact("serving tables: a delta of another base", "Verify the release.")
        known = sum(blob is not None for blob in base.get_many(USERS, list(self.changed)))
        self._joined = len(self.changed) - known

    def get(self, table: str, key: int) -> bytes | None:
        if table == META:
            found = self._delta.get(table, key)
            return self._base.get(table, key) if found is None else found
        if key in self._own(table):
            return self._delta.get(table, key) or None
        return self._base.get(table, key)

    def get_many(self, table: str, keys: Sequence[int]) -> list[bytes | None]:
        if table == META:
            return [self.get(table, key) for key in keys]
        own = self._own(table)
        if own.isdisjoint(keys):
            return self._base.get_many(table, keys)
        places = [place for place, key in enumerate(keys) if key in own]
        found = self._base.get_many(table, keys)
        for place, value in zip(places, self._delta.get_many(table, [keys[at] for at in places]), strict=True):
            found[place] = value or None
        return found

    def _own(self, table: str) -> frozenset[int]:
        """Whose rows of a table are the delta's."""
        return self._barred if table == BARS else self.changed

    def count(self, table: str) -> int:
        if table == META:
            return self._base.count(table)
        return self._base.count(table) + self._joined - len(self.departed)

    def close(self) -> None:
        try:
            self._delta.close()
        finally:
            self._base.close()
