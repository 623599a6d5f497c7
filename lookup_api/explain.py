"""explain=1: where each shown person came from, and what the ranker saw of the pair, but for the other's own doings."""

import logging
from collections.abc import Sequence
from typing import Any

from infra.blobs import Candidates, decode_candidates
from infra.errors import PymkError
from infra.kv import CANDIDATES
from lookup_api.ladder import Evidence
from lookup_api.ranking.sources import POPULAR, names_of
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

KEPT_BACK = frozenset({"acted_on"})
"""Features that are not told: what the candidate did to the viewer, such as visits of the profile, is theirs alone."""


def add_explanations(
    items: list[dict[str, Any]], user_id: int, release: ServedRelease, live: Evidence | None = None
) -> bool:
    """Adds "explain" to each item; false when the stored candidates could not be read and nothing is known.

    live: what a live ranking saw itself.
    """
    if live:
        for item in items:
            bits, features = live[int(item["user_id"])]
            told = {name: value for name, value in features.items() if name not in KEPT_BACK}
            item["explain"] = {"sources": list(names_of(bits)), "features": told}
        return True
    try:
        blob = release.tables.get(CANDIDATES, user_id)
        stored = decode_candidates(blob) if blob is not None else None
    except PymkError as error:
        log.error("cannot explain in release %s: %s", release.release_id, error)
        for item in items:
            item["explain"] = {"sources": [], "features": {}}
        return False
    places = {str(candidate): place for place, candidate in enumerate(stored.ids)} if stored else {}
    for item in items:
        item["explain"] = _evidence(stored, places.get(item["user_id"]), release.head.pair_features)
    return True


def _evidence(stored: Candidates | None, place: int | None, names: Sequence[str]) -> dict[str, Any]:
    """A popular person who is not among the user's candidates has no features."""
    if stored is None or place is None:
        return {"sources": list(names_of(POPULAR)), "features": {}}
    values = zip(names, stored.features[place].tolist(), strict=False)
    features = {name: value for name, value in values if name not in KEPT_BACK}
    return {"sources": list(names_of(stored.sources[place])), "features": features}
