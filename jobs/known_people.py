"""Whether a release knows a person: by its graph, by what it keeps of inactive users, by who joined since."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.artifacts import open_sound_files
from infra.errors import CorruptArtifact, PymkError
from infra.graph import open_array
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore
from jobs.inactive_bars import FILE

Part = tuple[str, str, str]
"""Kind, id and beginning of the names of files of an artifact."""


def is_in_release(store: ObjectStore, user_id: int) -> bool | None:
    """Whether any release that is kept does; the newest is asked first.

    False also where nothing was published. None where the served release cannot be read, or another cannot and none of
    the others does.
    """
    try:
        releases = ReleaseStore(store)
        releases.current()
        parts = dict.fromkeys(part for release in reversed(releases.list()) for part in _parts(release))
    except (PymkError, KeyError, OSError):
        return None
    unread = False
    for part in parts:
        try:
            if any(_names(path, user_id) for path in _sound(store, *part)):
                return True
        except (PymkError, KeyError, OSError, pa.ArrowException):
            unread = True
    return None if unread else False


def _parts(release: Release) -> Iterator[Part]:
    """Those that name everybody; in releases of earlier versions not all are there."""
    graph = release.artifacts["graph"].artifact_id
    yield "graph", graph, "ids.npy"
    yield "graph", graph, FILE
    if release.base is not None:
        yield "serving_delta", release.artifacts["serving_delta"].artifact_id, "rankings/"


def _sound(store: ObjectStore, kind: str, artifact: str, under: str) -> Iterator[Path]:
    opened, damaged = open_sound_files(store, kind, artifact, under)
    if damaged:
        raise CorruptArtifact(f"{opened.path / min(damaged)}: missing or damaged", "Verify the release.")
    yield from (opened.path / entry.path for entry in opened.manifest.files if entry.path.startswith(under))


def _names(path: Path, user_id: int) -> bool:
    if path.suffix == ".npy":
        ids = open_array(path)
        place = np.searchsorted(ids, user_id)
        return bool(place < len(ids) and ids[place] == user_id)
    return pq.read_table(path, columns=["user_id"], filters=[("user_id", "=", user_id)]).num_rows > 0
