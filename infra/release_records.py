"""What happened to a release after it was written: files of their own in `{store}/releases/{release_id}/`.

The release's own file never changes, so that whoever could open it still can. `override-{time}.json` says that gates
were passed over. An object `WITHDRAWN` says that the release was rolled back from: CURRENT says so too, but may be
damaged.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from infra.errors import Conflict, StoreError
from infra.release_files import Override, Pointer, Release
from infra.store import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "releases"
WITHDRAWN = "WITHDRAWN"


def records_of(release_id: str) -> str:
    """Prefix of the records of a release."""
    return f"{FOLDER}/{release_id}/"


def overrides_of(store: ObjectStore, release: Release) -> tuple[Override, ...]:
    """The times when gates were passed over for the release, first to last. Raises CorruptArtifact."""
    keys = [info.key for info in store.list(f"{records_of(release.release_id)}override-")]
    found = (Override.from_json(store.get(key).data, f"{store.uri}/{key}") for key in keys)
    return (*release.overrides, *found)


@contextmanager
def recorded(store: ObjectStore, release_id: str, override: Override) -> Iterator[None]:
    """Records the override: before the block as one of unknown end, after it as published.

    Of a block that lost to another writer, with Conflict, no record stays.
    """
    key = f"{records_of(release_id)}override-{override.at.replace(':', '')}.json"
    store.put(key, replace(override, published=False).to_json(), if_absent=True)
    try:
        yield
    except Conflict:
        store.delete(key)
        raise
    store.put(key, override.to_json())


def withdrawn_releases(store: ObjectStore) -> set[str]:
    """Ids of the releases that are marked as rolled back from."""
    parts = (info.key.split("/") for info in store.list(f"{FOLDER}/"))
    return {part[1] for part in parts if len(part) == 3 and part[2] == WITHDRAWN}


def mark_withdrawn(store: ObjectStore, pointer: Pointer) -> None:
    """Marks the releases that CURRENT, which was written just now, has as withdrawn, and not the one that it names."""
    try:
        marked = withdrawn_releases(store)
        for release_id in set(pointer.withdrawn) - marked:
            store.put(records_of(release_id) + WITHDRAWN, b"CURRENT was rolled back from this release.\n")
        if pointer.release_id in marked:
            store.delete(records_of(pointer.release_id) + WITHDRAWN)
    except StoreError as error:  # CURRENT has moved: to fail now would deny it
        log.warning("which releases are withdrawn is known to CURRENT alone: %s", error)
