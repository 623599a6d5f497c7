"""`pymk erase`: a person leaves live facts, caches and every answer at once, and all that is built from now on.

First the store's record, which nothing that is built passes by; then live facts, which every answer obeys, of whatever
release; then what was kept of them elsewhere. Done again after a failure, it goes on from there.
"""

import logging
from contextlib import closing
from typing import Any

from infra.erasures import copied_erasures, copy_of_record, erased_people, record_erasure, refuse_no_id
from infra.errors import InputError, PymkError, StoreError, UsageError
from infra.live_facts import LiveStore, facts_uri, open_live_facts
from infra.queued_work import Bounds, QueuedWork, open_queue
from infra.settings import Settings
from infra.shared_cache import SharedCache
from infra.store import ObjectStore, open_store
from jobs.known_people import is_in_release

log = logging.getLogger(__name__)

CACHE_TIMEOUT_S = 10.0
"""Of the shared cache, and of queued requests, for each answer."""


def erase(
    store: ObjectStore,
    facts: LiveStore,
    user_id: int,
    at_us: int,
    cache: str = "",
    lake: str | None = None,
    queue: QueuedWork | None = None,
) -> dict[str, Any]:
    """Returns what was touched.

    {"user_id", "recorded": whether they were not yet, "known": whether anything here had heard of them, null where that
    cannot be told, "live_facts": {what: rows removed}, "viewers": whose facts named them, "cached_lists",
    "queued_scores": removed, all there are, as any may name them, "lake": {table: rows removed}}
    cache: the Redis that workers share live rankings in, if any. lake: whose rows of the person go too; without one
    they stay there, and whatever is built passes them by. queue: requests to score later, and their results.
    """
    recorded = record_erasure(store, user_id, at_us)
    erased = facts.erase(user_id, at_us)
    cleared = _clear(cache) if cache else 0
    unscored = queue.clear() if queue else 0
    gone = _remove_from_lake(lake, facts, user_id) if lake else {}
    touched = not recorded or any(erased.rows.values()) or any(gone.values())
    return {
        "user_id": str(user_id),
        "recorded": recorded,
        "known": touched or is_in_release(store, user_id),
        "live_facts": dict(erased.rows),
        "viewers": len(erased.viewers),
        "cached_lists": cleared,
        "queued_scores": unscored,
        "lake": gone,
    }


def refuse_unknown(store: ObjectStore, facts: LiveStore, user_id: int, lake: str | None = None) -> None:
    """Raises UsageError for an id that nothing here has heard of: it may be mistyped, and no erasure is taken back.

    Where that cannot be told nothing is raised: what cannot be read keeps nobody from being erased.
    """
    refuse_no_id(user_id)
    try:
        known = user_id in erased_people(store) or facts.knows(user_id) or is_in_release(store, user_id)
        if known is False and lake:
            known = _is_in_lake(lake, user_id)
    except (StoreError, InputError):  # the erasure itself will meet it, and say so, once it is recorded
        return
    if known is False:
        asked = "release, live fact or row of the lake" if lake else "release or live fact"
        more = "" if lake else "; --lake has a lake looked at too"
        fix = f"Is the id right? With --unknown it is erased all the same{more}."
        raise UsageError(f"{user_id}: no {asked} names this id, and nothing was erased", fix)


def open_score_queue(facts_at: str, settings: Settings) -> QueuedWork:
    """Requests to score later, which are beside live facts."""
    api = settings.api
    bounds = Bounds(api.score_queue, api.score_queue_mib << 20, api.score_life_s)
    return open_queue(facts_at, bounds, CACHE_TIMEOUT_S)


def _is_in_lake(lake: str, user_id: int) -> bool:
    from jobs.lake_edits import lake_names

    return lake_names(lake, [user_id])


def _clear(cache: str) -> int:
    shared = SharedCache(cache, CACHE_TIMEOUT_S, life_s=1)
    try:
        return shared.clear()
    finally:
        shared.close()


def _remove_from_lake(lake: str, facts: LiveStore, user_id: int) -> dict[str, int]:
    from jobs.events_export import put_erasures
    from jobs.lake_edits import remove_people

    store = open_store(lake)
    with store.sole_writer():
        gone = remove_people(lake, [user_id])
        put_erasures(store, facts.erased())
    return gone


def adopt_erasures(store_uri: str, settings: Settings) -> None:
    """Erases from live facts whom only the store's record names: they may be new, restored, or of another machine.

    What is queued beside them goes too. A record that cannot be read is what this machine read of it last. Where that
    cannot be done now it is logged: what serves must still start.
    """
    try:
        recorded, facts_at = _recorded(store_uri), facts_uri(settings, store_uri)
        with closing(open_live_facts(facts_at, settings)) as facts:
            unknown = recorded.keys() - facts.erased() if recorded else set()
            for person in unknown:
                facts.erase(person, recorded[person])
        if unknown:
            with closing(open_score_queue(facts_at, settings)) as queue:
                queue.clear()
    except PymkError as error:
        log.error("the record of erasures could not be brought to live facts: %s", error)


def _recorded(store_uri: str) -> dict[int, int]:
    try:
        return erased_people(open_store(store_uri))
    except PymkError as error:
        log.error("the record of erasures cannot be read, so it is what was read of it last: %s", error)
        return copied_erasures(copy_of_record(store_uri))


def hide_erased(store: ObjectStore, report: dict[str, Any]) -> bool:
    """Takes the erased out of the lists that a kept report shows; whether there were any."""
    erased = {str(person) for person in erased_people(store)}
    shown: list[dict[str, Any]] = report.get("examples") or []
    kept = [
        example | {"items": [item for item in example["items"] if item["candidate_id"] not in erased]}
        for example in shown
        if example["user_id"] not in erased
    ]
    report["examples"] = kept
    return kept != shown


def refuse_erased(store: ObjectStore, *people: int) -> None:
    """Raises PymkError where somebody was erased: what a release still says of them is nobody's to read."""
    erased = erased_people(store)
    for person in people:
        if person in erased:
            raise PymkError(f"{person}: was erased")
