"""Where what shadows scored is kept: `{store}/shadows/{surface}/{day}/{time}-{name}.parquet`, by day and time of UTC.

The rows (infra.schemas.SHADOWS) name no user; what nobody scored, as requests were dropped, the file's own metadata
counts.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from infra.artifacts import check_name
from infra.store import ObjectStore

FOLDER = "shadows"
DROPPED = b"pymk.dropped"
"""Key of the metadata of a file: JSON, {name@version: {why: requests that it did not score}}, as UTF-8."""
BUSY, FULL, SPENT, ENDING, CRASHED = "busy", "full", "spent", "ending", "crashed"
"""Why a request is dropped. busy: the worker has others to do; full: its queue is; spent: it stored as much in the hour
as it may; ending: it was told to stop; crashed: a worker of the machine ended while the shadow scored."""


def key_of(surface: str, at: datetime, name: str) -> str:
    """name: another for every file of the same second."""
    return f"{FOLDER}/{check_name(surface, 'surface')}/{at.astimezone(UTC):%Y-%m-%d/%H%M%S}-{name}.parquet"


def files_of(store: ObjectStore, surface: str, since: datetime) -> Iterator[str]:
    """Keys of a surface's files that were written since then, in order of time."""
    prefix = f"{FOLDER}/{check_name(surface, 'surface')}/"
    first = f"{since.astimezone(UTC):%Y-%m-%d/%H%M%S}"
    for day in store.folders(prefix):
        if day >= first[: len(day)]:
            for info in store.list(f"{prefix}{day}/"):
                if info.key.removeprefix(prefix) >= first:
                    yield info.key


def remove_old(store: ObjectStore, before: datetime) -> list[str]:
    """Deletes the days that ended by then; returns their folders."""
    gone = []
    for surface in store.folders(f"{FOLDER}/"):
        for day in store.folders(f"{FOLDER}/{surface}/"):
            if day < f"{before.astimezone(UTC):%Y-%m-%d}":
                store.delete_folder(f"{FOLDER}/{surface}/{day}/")
                gone.append(f"{FOLDER}/{surface}/{day}")
    return gone
