"""Loading a release's serving tables into a host that the API's workers share."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from infra.artifacts import open_artifact
from infra.errors import CorruptArtifact
from infra.kv import SERVING_TABLES
from infra.lmdb_tables import LmdbTables
from infra.loaded_releases import Block, LoadedReleases
from infra.release_readers import reading
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore
from infra.table_hosts import TableHost

SERVING, DELTA = "serving_tables", "serving_delta"
ROWS_HASH = "rows_hash"
"""Metric of a delta: the hash of its rows alone; its content hash is of more."""
SAY_S = 5.0
"""Seconds between lines of progress."""


def load_release(
    store: ObjectStore,
    release: Release,
    host: TableHost,
    keep: int,
    switch: bool,
    progress: Callable[[str], None],
    if_current: bool = False,
) -> dict[str, Any]:
    """Loads a release that is not there yet, serves it and removes all but `keep` releases.

    Of a delta the base is loaded first, unless it is there. switch: false leaves what is served, and every other
    release, as it is; if_current: so does a release that CURRENT does not name, or not any more once it is loaded.
    Raises NotFound and CorruptArtifact for a release that does not verify, StoreError where the host fails; what was
    served then stays served.
    """
    loaded = LoadedReleases(host)

    def wanted() -> bool:
        return not if_current or ReleaseStore(store).current_id() == release.release_id

    start, made = time.perf_counter(), False
    if wanted():
        with reading(store, release.release_id):
            made = _load(store, release, loaded, progress)
    seconds = time.perf_counter() - start
    switched = switch and wanted() and loaded.switch(release.release_id, wanted)
    removed = loaded.clean(keep) if switch else []
    pointer = loaded.pointer()
    return {
        "release_id": release.release_id,
        "host": host.uri,
        "loaded": made,
        "load_s": round(seconds, 3),
        "switched": switched,
        "served": pointer.release_id if pointer else None,
        "removed": removed,
    }


def _load(store: ObjectStore, release: Release, loaded: LoadedReleases, progress: Callable[[str], None]) -> bool:
    if release.release_id in [known.release_id for known in loaded.releases()]:
        return False
    if release.base is not None:
        _load(store, ReleaseStore(store).get(release.base), loaded, progress)
    kind = SERVING if release.base is None else DELTA
    entry = release.artifacts.get(kind)
    if entry is None:
        raise CorruptArtifact(f"{release.release_id}: has no {kind}", "Load a whole release.")
    loaded.host.check_room(entry.bytes)
    artifact = open_artifact(store, kind, entry.artifact_id)
    if artifact.manifest.content_hash != entry.content_hash:
        raise CorruptArtifact(f"{release.release_id}: {entry.path} is not the artifact the release was made of")
    rows_hash = entry.content_hash if release.base is None else artifact.manifest.metrics[ROWS_HASH]
    tables = LmdbTables(artifact.path)
    try:
        rows = {table: tables.count(table) for table in SERVING_TABLES}
        blocks = _told(tables, sum(rows.values()), progress)
        return loaded.load(release, rows_hash, rows, blocks)
    finally:
        tables.close()


def _told(tables: LmdbTables, rows: int, progress: Callable[[str], None]) -> Iterator[Block]:
    """Every row of every table, with a line of progress now and then."""
    done, said_at = 0, time.monotonic()
    for table in SERVING_TABLES:
        for keys, values, ends in tables.blocks(table):
            yield table, keys, values, ends
            done += len(keys)
            if time.monotonic() - said_at >= SAY_S:
                said_at = time.monotonic()
                progress(f"loaded {done:,} of {rows:,} rows")
