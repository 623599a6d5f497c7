"""`pymk erase`: a person leaves live facts, caches and every answer at once, and all that is built from now on.

First the store's record, which nothing that is built passes by; then live facts, which every answer obeys, of whatever
release; then what was kept of them elsewhere. Done again after a failure, it goes on from there.
"""

from typing import Any

from infra.erasures import erased_people, record_erasure
from infra.errors import PymkError
from infra.live_facts import LiveStore
from infra.store import ObjectStore


def erase(store: ObjectStore, facts: LiveStore, user_id: int, at_us: int, lake: str | None) -> dict[str, Any]:
    """Returns what was touched: {"user_id", "recorded", "live_facts": {what: rows}, "viewers", "lake": {table: rows}}.

    lake: the lake whose rows of the person go too; without one they stay there, and whatever is built passes them by.
    """
    recorded = record_erasure(store, user_id, at_us)
    erased = facts.erase(user_id, at_us)
    gone = _remove_from_lake(lake, facts, user_id) if lake else {}
    return {
        "user_id": str(user_id),
        "recorded": recorded,
        "live_facts": dict(erased.rows),
        "viewers": len(erased.viewers),
        "lake": gone,
    }


def _remove_from_lake(lake: str, facts: LiveStore, user_id: int) -> dict[str, int]:
    from infra.store import open_store
    from jobs.events_export import put_erasures
    from jobs.lake_edits import remove_people

    store = open_store(lake)
    with store.sole_writer():
        gone = remove_people(lake, [user_id])
        put_erasures(store, facts.erased())
    return gone


def adopt_erasures(store: ObjectStore, facts: LiveStore) -> int:
    """Erases from live facts whom only the store's record names, as new or restored ones may; returns how many."""
    missing = {person: at for person, at in erased_people(store).items() if person not in facts.erased()}
    for person, at in missing.items():
        facts.erase(person, at)
    return len(missing)


def refuse_erased(store: ObjectStore, *people: int) -> None:
    """Raises PymkError where somebody was erased: what a release still says of them is nobody's to read."""
    for person in people:
        if person in erased_people(store):
            raise PymkError(f"{person}: was erased")
