"""What happened to a release after it was written: files of their own in `{store}/releases/{release_id}/`.

The release's own file never changes, so that whoever could open it still can. `lineage.json` says what made it.
`override-{time}.json` says that gates were passed over. An object `WITHDRAWN` says that the release was rolled back
from: CURRENT says so too, but may be damaged.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from infra.errors import Conflict, CorruptArtifact, NotFound, StoreError
from infra.release_files import Override, Pointer, Release
from infra.store import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "releases"
WITHDRAWN = "WITHDRAWN"
LINEAGE = "lineage.json"
LINEAGE_VERSION = 1


@dataclass(frozen=True)
class Lineage:
    """What made a release. run_id: of the command; dag_run: of the scheduler's run, if it was in one. at: RFC 3339 UTC.

    settings: by section, those that decide the content, as resolved for that machine; empty in records of before they
    were kept. settings_digest: sha256 over them. lake: {"uri", "files": {key: size in bytes}},
    empty where nobody knows. artifacts: of each kind {"artifact_id", "parents"} and, as far as is known, who made it:
    "run_id", "dag_run", "host", "token", "since", "code_version". base: of a delta. parents: the release served then.
    commit: that the code is of, None where it is in no checkout of git.
    """

    run_id: str
    dag_run: str | None
    host: str
    code_version: str
    at: str
    settings_digest: str
    lake: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    base: str | None = None
    parents: tuple[str, ...] = ()
    commit: str | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        values = asdict(self) | {"schema_version": LINEAGE_VERSION}
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Lineage":
        try:
            values = json.loads(data)
            version = values.pop("schema_version")
            if version != LINEAGE_VERSION:
                raise CorruptArtifact(f"{where}: lineage version {version}, this code reads {LINEAGE_VERSION}")
            return cls(parents=tuple(map(str, values.pop("parents"))), **values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            fix = "Delete the file: the release itself is another."
            raise CorruptArtifact(f"{where}: not a lineage: {error}", fix) from error


def keep_lineage(store: ObjectStore, release_id: str, lineage: Lineage) -> Lineage:
    """Keeps what made a release, unless that is known already: the first record stands, and is returned."""
    try:
        store.put(records_of(release_id) + LINEAGE, lineage.to_json(), if_absent=store.conditional_puts)
    except Conflict:
        return lineage_of(store, release_id) or lineage
    return lineage


def lineage_of(store: ObjectStore, release_id: str) -> Lineage | None:
    """What made a release; None where nobody recorded it. Raises CorruptArtifact."""
    key = records_of(release_id) + LINEAGE
    try:
        return Lineage.from_json(store.get(key).data, f"{store.uri}/{key}")
    except NotFound:
        return None


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


def mark_withdrawn(store: ObjectStore, pointer: Pointer, nightly: str) -> None:
    """Marks the releases that CURRENT, which was written just now, has as withdrawn, and neither the one that it names
    nor the nightly of that."""
    try:
        marked = withdrawn_releases(store)
        for release_id in set(pointer.withdrawn) - marked:
            store.put(records_of(release_id) + WITHDRAWN, b"CURRENT was rolled back from this release.\n")
        for release_id in marked & {pointer.release_id, nightly}:
            store.delete(records_of(release_id) + WITHDRAWN)
    except StoreError as error:  # CURRENT has moved: to fail now would deny it
        log.warning("which releases are withdrawn is known to CURRENT alone: %s", error)
