"""What is looked at before a night starts, so that it fails in its first minute: inputs, memory, time and room.

Tables are read by their files' footers alone. A night is estimated from what the stages of the release before took, in
proportion to the rows of the lake, and from nights of known networks where there is none.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.artifacts import Manifest
from infra.errors import CorruptArtifact, InputError, NotFound, PymkError
from infra.free_memory import available_memory
from infra.lake import Lake, describe_file, open_lake
from infra.release_records import withdrawn_releases
from infra.releases import ReleaseStore, manifests_of
from infra.schemas import CONNECTIONS, LAKE_TABLES, PROFILES
from infra.settings import Settings
from infra.store import cache_folder, folder_or_none, open_store

GIB = 2**30
BASE_BYTES, USER_BYTES, FRIENDSHIP_BYTES = 2 * GIB, 10 * 2**10, 200
"""Memory of a night without a release before it: fitted to docs/performance.md, 20,000 and 195,000 users."""
BASE_S, USER_S, FRIENDSHIP_S = 60.0, 2e-3, 3e-4
"""Its wall time, from the same."""
DISK_BASE_BYTES, DISK_USER_BYTES = GIB // 2, 10 * 2**10
"""What it writes."""
SPARE = 1.25
"""Room asked for beside what the night is expected to write: files are written beside what they replace."""


@dataclass(frozen=True)
class Obstacle:
    """refuses: the night must not start; else it is a warning."""

    check: str
    detail: str
    fix: str
    refuses: bool = True

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


@dataclass(frozen=True)
class Estimate:
    """Of a whole night, and of its largest stage where it is memory. measured: from the release before."""

    wall_s: float
    memory_bytes: int
    disk_bytes: int
    measured: bool


@dataclass(frozen=True)
class Before:
    """The newest nightly release of an earlier as-of that was served, was not withdrawn and is whole."""

    release_id: str
    manifests: Mapping[str, Manifest]

    @property
    def rows(self) -> Mapping[str, int]:
        """By table of the lake; empty where its build_graph did not keep them."""
        found: Mapping[str, int] = self.manifests["graph"].metrics.get("lake_rows", {})
        return found


@dataclass(frozen=True)
class Preflight:
    rows: Mapping[str, int]
    before: Before | None
    estimate: Estimate
    obstacles: tuple[Obstacle, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": dict(self.rows),
            "release_before": self.before.release_id if self.before else None,
            "estimate": asdict(self.estimate),
            "obstacles": [asdict(obstacle) for obstacle in self.obstacles],
        }


def check(lake: str, store: str, as_of: datetime, settings: Settings) -> Preflight:
    """Looks at everything a night needs. Raises InputError or StoreError where there is no lake or no table in it."""
    opened = open_lake(lake)
    rows, unreadable = count_rows(opened)
    before, passed_over = release_before(store, as_of)
    estimate = estimated(rows, before)
    obstacles = (
        *unfinished(opened),
        *unreadable,
        *passed_over,
        *shrunk(rows, before, settings.gates.min_rows_share),
        *memory_short(estimate),
        *disk_short(estimate, store),
    )
    return Preflight(rows, before, estimate, obstacles)


def refuse(found: Preflight) -> None:
    """Raises InputError naming every obstacle that refuses."""
    refusing = [obstacle for obstacle in found.obstacles if obstacle.refuses]
    if refusing:
        raise InputError(
            "the night does not start: " + "; ".join(map(str, refusing)),
            " ".join(dict.fromkeys(obstacle.fix for obstacle in refusing)),
        )


def count_rows(lake: Lake) -> tuple[dict[str, int], list[Obstacle]]:
    """Rows by table, by the footers of its files; an obstacle for each file that cannot be read."""
    store = open_store(lake.uri)
    rows, obstacles = {}, []
    for name, files in lake.tables.items():
        rows[name] = 0
        for info in files:
            try:
                rows[name] += sum(describe_file(store, LAKE_TABLES[name], info.key).group_rows)
            except PymkError as error:
                obstacles.append(Obstacle("inputs", error.what, error.fix))
    if not rows[CONNECTIONS.name] and not obstacles:
        obstacles.append(Obstacle("inputs", f"{lake.uri}: connections has no row", "Wait for it, or import it."))
    return rows, obstacles


def unfinished(lake: Lake) -> Iterator[Obstacle]:
    """Tables with a folder in which a writer of Spark or Hadoop keeps what it has not committed."""
    store = open_store(lake.uri)
    for name in lake.tables:
        if any("/_temporary/" in info.key for info in store.list(f"{name}/_temporary/")):
            what = f"{lake.uri}/{name}: holds _temporary: a writer is at work or was killed"
            yield Obstacle("inputs", what, "Wait for it; if it was killed, write the table again.")


def shrunk(rows: Mapping[str, int], before: Before | None, least: float) -> Iterator[Obstacle]:
    """Tables that are gone or have far fewer rows than the release before was made from: they came in part."""
    for name, had in (before.rows if before else {}).items():
        has = rows.get(name, 0)
        if before and has < least * had:
            detail = f"{name} has {has:,} rows, {had:,} in release {before.release_id}; gates.min_rows_share is {least}"
            yield Obstacle("inputs", detail, "Wait for the rest of the table; lower the setting where it is right.")


def release_before(store: str, as_of: datetime) -> tuple[Before | None, list[Obstacle]]:
    """What the night is held against, if there is such a release; and warnings of newer ones that are not whole."""
    warnings: list[Obstacle] = []
    try:
        releases = ReleaseStore(open_store(store))
        served = served_nights(releases)
        for release in reversed(releases.list()):
            if release.release_id in served and release.time < as_of:
                try:
                    return Before(release.release_id, manifests_of(releases.store, release)), warnings
                except (NotFound, CorruptArtifact) as error:
                    what = f"release {release.release_id} cannot be compared with: {error.what}"
                    warnings.append(Obstacle("inputs", what, "An earlier one is, if there is one.", refuses=False))
    except PymkError:
        if _is_there(store):
            raise
    return None, warnings


def served_nights(releases: ReleaseStore) -> set[str]:
    """Nightly releases that were served, themselves or by a delta on them, but for those that were withdrawn.

    A release names as its parent what was served when it was made, and CURRENT what it named before.
    """
    listed = releases.list()
    pointer = releases.look(repairing=True).pointer
    named = {parent for release in listed for parent in release.parents}
    named |= {pointer.release_id, *pointer.history} if pointer else set()
    nights = {release.nightly for release in listed if release.release_id in named}
    return nights - withdrawn_releases(releases.store)


def _is_there(store: str) -> bool:
    folder = folder_or_none(store)
    return folder is None or folder.is_dir()


def estimated(rows: Mapping[str, int], before: Before | None) -> Estimate:
    """From the release before, in proportion to the rows of the largest table, or else from known networks."""
    if before and before.rows:
        growth = max(rows.get(name, 0) / had for name, had in before.rows.items() if had)
        costs = [manifest.cost for manifest in before.manifests.values()]
        return Estimate(
            wall_s=round(growth * sum(cost.get("wall_s", 0.0) for cost in costs), 1),
            memory_bytes=int(max(1.0, growth) * max(cost.get("peak_memory_bytes", 0) for cost in costs)),
            disk_bytes=int(growth * sum(manifest.size_bytes for manifest in before.manifests.values())),
            measured=True,
        )
    friendships = rows.get(CONNECTIONS.name, 0)
    users = rows.get(PROFILES.name) or friendships // 10
    return Estimate(
        wall_s=round(BASE_S + USER_S * users + FRIENDSHIP_S * friendships, 1),
        memory_bytes=BASE_BYTES + USER_BYTES * users + FRIENDSHIP_BYTES * friendships,
        disk_bytes=DISK_BASE_BYTES + DISK_USER_BYTES * users + FRIENDSHIP_BYTES * friendships,
        measured=False,
    )


def memory_short(estimate: Estimate) -> Iterator[Obstacle]:
    """Refuses what all memory cannot hold; warns of what does not fit now, as what else runs may end before."""
    free, all_ = available_memory()
    if estimate.memory_bytes > free:
        what = f"the largest stage takes about {_gib(estimate.memory_bytes)}, free are {_gib(free)} of {_gib(all_)}"
        fix = "End what else runs here, lower candidates.block and spark.memory, or take a larger machine."
        yield Obstacle("memory", what, fix, refuses=estimate.memory_bytes > all_)


def disk_short(estimate: Estimate, store: str) -> Iterator[Obstacle]:
    """Looks at the store where it is a folder, else at that of the copies on this machine, and at temporary files."""
    wanted = int(SPARE * estimate.disk_bytes)
    folder = folder_or_none(store)
    kept = ("copies of the store's artifacts", cache_folder()) if folder is None else ("the store", folder)
    for what, place in (kept, ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(_nearest(place)).free
        if free < wanted:
            detail = f"a night writes about {_gib(wanted)}, free are {_gib(free)} for {what}, in {place}"
            fix = (
                "`pymk release clean` removes old releases; TMPDIR names another folder for temporary files, "
                "PYMK_CACHE_DIR one for copies."
            )
            yield Obstacle("disk", detail, fix)


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    folder = folder.expanduser().resolve()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
