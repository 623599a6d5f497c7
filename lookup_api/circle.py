"""What the release and the live facts know of the people around a viewer."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from infra.blob_batches import FriendLists, decode_friend_lists
from infra.blobs import decode_bars, decode_neighbours
from infra.kv import BARS, NEIGHBOURS, USERS, KeyValueReader
from lookup_api.ladder import Ask
from lookup_api.ranking.near_friends import Near, near_friends

CONNECTED = "connected"
MOST_LISTS = 150
"""Friends whose own friends are looked at."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Circle:
    """friends: whom the viewer may see, those made since the release first. barred int64: whom the viewer must not be
    shown by the night: itself, all friends, excluded.

    new: how many of the friends the release does not know. complete: `barred` is known to name everybody; else nobody
    may be shown whom the night did not already choose for this viewer.
    """

    friends: list[int]
    new: int
    barred: Int64
    complete: bool
    tables: KeyValueReader

    @cached_property
    def lists(self) -> FriendLists:
        """Friends of each friend whom the release knows: one batched read."""
        blobs = self.tables.get_many(NEIGHBOURS, self.friends[:MOST_LISTS])
        return decode_friend_lists([blob for blob in blobs if blob is not None])

    @cached_property
    def near(self) -> Near:
        """Friends of friends, without those barred."""
        return near_friends(self.lists.ids, self.lists.lengths, self.lists.friends).without(self.barred)


def circle_of(ask: Ask) -> Circle | None:
    """None for somebody whom neither the release nor the live facts connect to anybody."""
    tables, viewer, facts = ask.release.tables, ask.query.user_id, ask.facts
    blob, more = tables.get(NEIGHBOURS, viewer), tables.get(BARS, viewer)
    known = decode_neighbours(blob).ids if blob is not None else []
    if blob is not None:
        barred = _bars(known, more)
    elif tables.get(USERS, viewer) is None:  # a night that does not know the viewer bars nobody but by a row of its own
        barred = np.zeros(0, np.int64) if more is None else _bars(known, more)
    else:
        barred = None
    made = {person for person, rule in facts.barred.items() if rule == CONNECTED}
    new = made.difference(known)
    if barred is not None and len(barred):
        new.difference_update(barred.tolist())
    friends = [*sorted(new), *(f for f in known if f in made or f not in facts.barred)]
    departed = ask.release.departed
    visible = [friend for friend in friends if friend not in facts.hidden and friend not in departed]
    if not visible and blob is None:
        return None
    ids = np.array([viewer, *sorted(made)], np.int64)
    everybody = ids if barred is None else np.concatenate([ids, barred])
    return Circle(visible, len(new), everybody, barred is not None, tables)


def bars_by_night(tables: KeyValueReader, viewer: int) -> Int64 | None:
    """Friends and excluded people of a viewer as of the release, int64 [n]; None where the release does not say.

    Of somebody whom the night left out as inactive the bars say all.
    """
    blob = tables.get(NEIGHBOURS, viewer)
    if blob is None and tables.get(USERS, viewer) is not None:
        return None
    return _bars([] if blob is None else decode_neighbours(blob).ids, tables.get(BARS, viewer))


def _bars(friends: list[int], more: bytes | None) -> Int64 | None:
    return None if more is None else np.array(friends + decode_bars(more), np.int64)


def is_outdated(ask: Ask, new_friends: int) -> bool:
    """Whether the viewer has made that many friends since the release."""
    made = [person for person, rule in ask.facts.barred.items() if rule == CONNECTED]
    if len(made) < new_friends:
        return False
    known = bars_by_night(ask.release.tables, ask.query.user_id)
    return known is not None and len(set(made).difference(known.tolist())) >= new_friends
