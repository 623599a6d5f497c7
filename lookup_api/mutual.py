"""Who two people both know, among the friends that the release stores and the viewer may see."""

from typing import Any

from infra.blobs import decode_bars, decode_neighbours
from infra.kv import BARS, NEIGHBOURS
from infra.live_facts import CONNECTED, ViewerFacts
from lookup_api.served_release import ServedRelease

MOST = 50


def mutual_friends(user_id: int, other_id: int, release: ServedRelease, facts: ViewerFacts | None) -> dict[str, Any]:
    """{"user_id", "other_id", "count", "friends": at most MOST ids, ascending}.

    Nobody is named whom the viewer must not see; where live facts cannot be read (None) that is everybody. Nothing is
    told of somebody whom the night keeps from the viewer, nor of a friend who is not among those stored.
    """
    shared: list[int] = []
    if facts is not None and not facts.viewer_hidden and _may_see(other_id, release, facts):
        blobs = release.tables.get_many(NEIGHBOURS, [user_id, other_id])
        one, other = (set(decode_neighbours(blob).ids) if blob is not None else set() for blob in blobs)
        bars = release.tables.get(BARS, user_id)
        if bars is not None and other_id not in decode_bars(bars):
            shared = sorted(friend for friend in one & other if _may_see(friend, release, facts))
    names = [str(friend) for friend in shared[:MOST]]
    return {"user_id": str(user_id), "other_id": str(other_id), "count": len(shared), "friends": names}


def _may_see(person: int, release: ServedRelease, facts: ViewerFacts) -> bool:
    if person in facts.hidden or person in release.departed:
        return False
    return facts.barred.get(person, CONNECTED) == CONNECTED
