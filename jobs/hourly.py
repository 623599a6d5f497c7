"""What happened since the night, as a delta release on it: who joined, new friendships, who is kept from whom.

One stage makes one artifact, from the artifacts of the nightly release and the lake; it is found again like those of
the night. A delta holds all that came since its base, so that a reader opens the base and one delta.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infra.artifacts import OpenArtifact, open_sound_files
from infra.errors import CorruptArtifact, PymkError
from infra.release_files import Release
from infra.releases import ReleaseStore
from infra.settings import Settings
from infra.store import ObjectStore
from infra.times import format_time
from jobs.hardware import resolved
from jobs.lineage import files_of, record_lineage
from jobs.pipeline import Pipeline
from jobs.stages import Stage

KIND = "serving_delta"
SHOWN = "rankings"
"""Folder below a delta's data: what the touched users are shown, schema RANKINGS."""
DELTA = Stage(
    "delta_tables",
    KIND,
    ("graph", "encoder", "embeddings", "index", "features", "ranker", "rankings", "serving_tables"),
    ("graph", "candidates", "rank", "serving", "rules"),
    summary="Serving rows of whom new facts touch, and an index of who joined",
)
READ = {
    "embeddings": ("now.npy",),
    "index": ("now/",),
    "features": ("now/factors.npy", "now/towers.npy"),
    "rankings": ("_prices.npy",),
    "serving_tables": (),
}
"""What of the larger artifacts is read, by the start of its path; of the others everything."""
NOTHING = "\0"

Tell = Callable[[str], None]


@dataclass
class DeltaPipeline(Pipeline):
    """A run of the one stage over the artifacts of a nightly release. base: must be given."""

    base: Release | None = None

    def artifact_id(self, kind: str) -> str:
        return self.nightly.artifacts[kind].artifact_id

    @property
    def nightly(self) -> Release:
        assert self.base is not None
        return self.base

    def _parent_ids(self, stage: Stage) -> dict[str, str]:
        """A delta depends on its base and on the lake."""
        lake = super()._parent_ids(Stage("lake", "lake"))
        return {kind: self.artifact_id(kind) for kind in stage.parents} | lake

    def _refuse_moved_lake(self, stage: Stage) -> None:
        super()._refuse_moved_lake(Stage("lake", "lake"))

    def _open(self, kind: str) -> OpenArtifact:
        """Those files of an artifact of the base that are read, verified once."""
        if kind not in self._opened:
            self._opened[kind] = open_files(self.store, kind, self.artifact_id(kind), READ.get(kind, ("",)))
        return self._opened[kind]


def open_files(store: ObjectStore, kind: str, artifact: str, prefixes: Sequence[str]) -> OpenArtifact:
    """Opens the files whose path starts with one of the prefixes. Raises NotFound, and CorruptArtifact naming one."""
    for prefix in prefixes or (NOTHING,):
        opened, damaged = open_sound_files(store, kind, artifact, prefix)
        if damaged:
            what = f"{opened.path / min(damaged)}: missing or damaged"
            raise CorruptArtifact(what, "Verify the release; run its stage again.")
    return opened


def run_hourly(
    lake: str,
    store: ObjectStore,
    as_of: datetime,
    settings: Settings,
    tell: Tell,
    base_id: str | None = None,
    publish: bool = True,
) -> dict[str, Any]:
    """Makes the delta as of a time and publishes it, where it is newer than what is served.

    base_id: of a nightly; that of the served release if not given. Returns {"as_of", "base", "stages", "changed",
    "release_id", "published", "said", "warnings"}; the release id is that of the base where it knows all of it already.
    Raises GateRefused where somebody would be shown who must not be.
    """
    from jobs.publishing import publish_release

    releases = ReleaseStore(store)
    base = find_base(releases, base_id)
    if as_of <= base.time:
        said = f"nothing to add: {base.release_id} is as of {base.as_of}"
        tell(said)
        return _told(as_of, base, base, {}) | {"published": False, "said": said, "warnings": []}
    release, made = make_delta(lake, store, base, as_of, settings, tell)
    answer = _told(as_of, base, release, made)
    if not publish:
        return answer | {"published": False, "said": "written, CURRENT stays as it is", "warnings": []}
    published = publish_release(releases, release, settings, tell, carry=carrier(lake, store, settings, tell))
    tell(f"release {release.release_id}: {published['said']}")
    return answer | published


def _told(as_of: datetime, base: Release, release: Release, made: dict[str, Any]) -> dict[str, Any]:
    changed = made.pop("changed", {})
    stages = {DELTA.name: made} if made else {}
    answer = {"as_of": format_time(as_of), "base": base.release_id, "stages": stages, "changed": changed}
    return answer | {"release_id": release.release_id}


def find_base(releases: ReleaseStore, base_id: str | None) -> Release:
    """A nightly release: the named one, or that of the served release. Raises PymkError where none was published."""
    named = releases.get(base_id) if base_id else releases.current()
    if named is None:
        raise PymkError(f"{releases.store.uri}: nothing was published yet", "Run `pymk run` first.")
    return releases.get(named.nightly)


def make_delta(
    lake: str, store: ObjectStore, base: Release, as_of: datetime, settings: Settings, tell: Tell
) -> tuple[Release, dict[str, Any]]:
    """Makes or finds the delta on a nightly release; CURRENT stays as it is.

    Returns the release, and what was done: artifact_id, rows, content_hash, found, cost, and what `changed`.
    """
    with DeltaPipeline(lake, store, as_of, settings, tell, base=base) as pipeline:
        made = pipeline.ensure(DELTA)
    manifest = open_files(store, KIND, made["artifact_id"], ()).manifest
    release = ReleaseStore(store).make_delta(base, {KIND: manifest}, as_of)
    record_lineage(store, release, pipeline.maker, resolved(settings), files_of(lake))
    changed = {name: manifest.metrics[name] for name in ("joined", "departed", "friendships", "touched", "waiting")}
    return release, made | {"changed": changed}


def carrier(lake: str, store: ObjectStore, settings: Settings, tell: Tell) -> Callable[[Release, datetime], Release]:
    """What carries a late nightly forward: makes the delta on it at the as-of of the delta that it replaces."""

    def carry(base: Release, as_of: datetime) -> Release:
        tell(f"carrying {base.release_id} forward to {format_time(as_of)}, which deltas know already")
        return make_delta(lake, store, base, as_of, settings, tell)[0]

    return carry
