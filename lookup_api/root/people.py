"""A viewer and the people in question, as the release and the live facts know them, before features are read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from infra.blob_batches import Users
from infra.blobs import Candidates, decode_candidates
from infra.kv import CANDIDATES
from lookup_api.circle import MOST_LISTS, Circle
from lookup_api.ladder import Ask
from lookup_api.ranking.near_friends import NOBODY
from lookup_api.served_release import ServedRelease

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Viewer:
    """What is known of whom the list is for. user: one row, not found for somebody the release does not know."""

    user: Users
    stored: Candidates | None
    circle: Circle | None

    @classmethod
    def of(cls, ask: Ask, circle: Circle | None) -> "Viewer":
        release, user_id = ask.release, ask.query.user_id
        stored = release.tables.get(CANDIDATES, user_id)
        return cls(release.users([user_id]), None if stored is None else decode_candidates(stored), circle)

    @property
    def known(self) -> bool:
        return bool(self.user.found[0])

    def vector(self, release: ServedRelease) -> Float32:
        """What the index is asked by, float32 [D]: the stored embedding, which of somebody without friends is that of
        the profile alone; for somebody the release does not know the mean direction of the friends. Zero for nothing.
        """
        if self.known or self.circle is None:
            return self.user.embeddings(np.zeros(1, np.int64))[0]
        friends = release.users(self.circle.friends[:MOST_LISTS])
        mean: Float32 = friends.embeddings(np.arange(len(friends.found))).sum(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-9)

    def barred(self, ask: Ask) -> Int64:
        """Whom the live facts of the viewer and the night keep out, int64 [m]; of those hidden from all only the rules
        know."""
        own = np.array([ask.query.user_id, *ask.facts.barred], np.int64)
        return own if self.circle is None else np.concatenate([own, self.circle.barred])


@dataclass(frozen=True)
class People:
    """Candidates: ids int64 [n], sources uint8 [n], stored int64 [n]: place among the stored candidates, -1 for others;
    cosine float32 [n]: of the embeddings, NaN where it was not computed yet; common int64 [n], allocation float32 [n]:
    over the friends' friend lists (near_friends)."""

    ids: Int64
    sources: Bytes
    stored: Int64
    cosine: Float32
    common: Int64
    allocation: Float32

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def named(cls, ids: Sequence[int], viewer: Viewer) -> "People":
        """People whom a caller names, none of them twice. Of those who are barred nothing is known in common."""
        named = np.array(ids, np.int64)
        place = np.full(len(named), -1, np.int64)
        if viewer.stored is not None and len(viewer.stored.ids):
            stored = np.array(viewer.stored.ids, np.int64)
            order = np.argsort(stored)
            at = order[np.minimum(np.searchsorted(stored, named, sorter=order), len(stored) - 1)]
            place = np.where(stored[at] == named, at, -1)
        common, allocation = (viewer.circle.near if viewer.circle is not None else NOBODY).of(named)
        unknown = np.full(len(named), np.nan, np.float32)
        return cls(named, np.zeros(len(named), np.uint8), place, unknown, common, allocation)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "People":
        """Some of them, by bool [n]."""
        return People(*(getattr(self, part.name)[chosen] for part in fields(self)))
