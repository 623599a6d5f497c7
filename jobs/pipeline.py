"""Runs stages: finds what is finished, makes what is not, and publishes."""

import importlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

from infra.artifacts import DATA, Manifest, OpenArtifact, find_manifest, open_artifact, write_artifact
from infra.cost import CostMeter
from infra.errors import CorruptArtifact, InputError, NotFound, PymkError, UsageError
from infra.file_lock import held, lock_of
from infra.leases import FOUND, Lease, Maker, take, touch
from infra.releases import Release, ReleaseStore
from infra.settings import Settings
from infra.store import ObjectStore
from infra.times import format_time
from jobs.artifact_names import ArtifactNames
from jobs.context import Parent, StageContext, StageResult
from jobs.lineage import files_of, record_lineage, this_run
from jobs.spark_holder import SparkHolder
from jobs.stages import PUBLISH, STAGE_NAMES, STAGES, Stage, stage_named, stage_of
from jobs.version import VERSION
from jobs.work_folder import work_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)


@dataclass
class Pipeline(ArtifactNames):
    """One run: a lake, a store, an as-of and settings.

    graph_id: pins a graph built earlier from this lake. shared_spark: a session that outlives the run; without one
    the run starts its own when a stage first asks, and stops it at the end. maker: who this run is for others.
    """

    lake: str
    store: ObjectStore
    as_of: datetime
    settings: Settings
    progress: Callable[[str], None] = lambda line: None
    graph_id: str | None = None
    shared_spark: "Callable[[], SparkSession] | None" = None
    maker: Maker = field(default_factory=this_run)
    _opened: dict[str, OpenArtifact] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._own_spark = SparkHolder(self.settings, self.store, self.lake)

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self._own_spark.stop()

    def run(self, first: str | None = None, until: str | None = None, publish: bool = True) -> dict[str, Any]:
        """Runs the stages from `first` to `until`; those before `first` must be finished.

        Returns {"as_of", "stages": {name: {"artifact_id", "content_hash", "found", "cost"}}, "release_id",
        "published"}; the last two only when the last stage is part of it. publish: false writes the release and leaves
        CURRENT alone.
        """
        names = _between(first, until)
        made = {name: self.ensure(stage_named(name)) for name in names if name != PUBLISH}
        answer: dict[str, Any] = {"as_of": format_time(self.as_of), "stages": made}
        if PUBLISH in names:
            answer |= self.publish() if publish else self._unpublished()
        return answer

    def _unpublished(self) -> dict[str, Any]:
        release = self.make_release()
        said = "written, CURRENT stays as it is"
        self.progress(f"release {release.release_id}: {said}")
        return {"release_id": release.release_id, "published": False, "said": said, "warnings": []}

    def ensure(self, stage: Stage, shard: int | None = None) -> dict[str, Any]:
        """Finds the stage's artifact or makes it; where another run is at it, waits and finds what that one made."""
        kind, wanted = self._identity(stage, shard)
        found = self._finished(kind, wanted)
        manifest, made = (found, False) if found else self._make_once(stage, kind, wanted, shard)
        if not made:
            self.progress(f"{stage.name}: found {kind}/{wanted}")
        return {
            "artifact_id": wanted,
            "kind": kind,
            "rows": manifest.rows,
            "content_hash": manifest.content_hash,
            "found": not made,
            "cost": manifest.cost,
        }

    def _make_once(self, stage: Stage, kind: str, wanted: str, shard: int | None) -> tuple[Manifest, bool]:
        """The manifest, and whether this run made it. Raises Fenced where another run took over from this one."""
        if not self.store.conditional_puts:
            return self._make(stage, kind, wanted, shard, None)
        lease = take(
            self.store,
            f"{kind}/{wanted}",
            self.maker,
            ttl_s=self.settings.store.lease_s,
            uses=self._uses(stage),
            done=lambda: self._finished(kind, wanted) is not None,
            tell=lambda line: self.progress(f"{stage.name}: {line}"),
        )
        if lease is None:
            return self._opened[kind].manifest, False
        with lease:
            if found := self._finished(kind, wanted, mending=True):
                lease.ending = FOUND
                return found, False
            return self._make(stage, kind, wanted, shard, lease)

    def _uses(self, stage: Stage) -> tuple[str, ...]:
        """What the stage reads of the store, so that nobody cleans it away meanwhile."""
        shards = range(self.settings.index.shards) if stage.sharded else ()
        named = (("encoder", one) for one in self._named_parents(stage).values())
        read = [(kind, self.artifact_id(kind)) for kind in stage.parents]
        return tuple(f"{k}/{a}" for k, a in (*read, *named, *(self._identity(stage, number) for number in shards)))

    def publish(self, *, force: bool = False, reason: str | None = None) -> dict[str, Any]:
        """Writes the release, checks the gates and moves CURRENT; see jobs.publishing.publish_release."""
        from jobs.hourly import carrier
        from jobs.publishing import publish_release
        from jobs.variant_lists import rank_variants
        from lookup_api.canary_guard import Bounds

        release = self.make_release()
        releases = ReleaseStore(self.store)
        rank_variants(self.store, release, self.progress, Bounds.of(self.settings.models))
        made = publish_release(
            releases,
            release,
            self.settings,
            self.progress,
            force=force,
            reason=reason,
            carry=carrier(self.lake, self.store, self.settings, self.progress),
            maker=self.maker,
        )
        self.progress(f"release {release.release_id}: {made['said']}")
        return made

    def make_release(self) -> Release:
        """Writes the release of this run's artifacts, and what made it, and leaves CURRENT alone.

        Its ranker is a version of the model `nightly` from then on.
        """
        from jobs.nightly_model import try_push

        release = ReleaseStore(self.store).make({stage.kind: self._open(stage.kind).manifest for stage in STAGES})
        record_lineage(self.store, release, self.maker, self._resolved)
        try_push(self.store, release, self.settings.ladder.features_life_days, self.progress)
        return release

    def _finished(self, kind: str, wanted: str, mending: bool = False) -> Manifest | None:
        """The manifest of a finished artifact; None for a damaged one too. mending: such a one is removed."""
        try:
            opened = open_artifact(self.store, kind, wanted)
        except NotFound:
            return None
        except CorruptArtifact as error:
            if mending:
                log.warning("%s; making it again", error.what)
                self.store.delete_folder(f"{kind}/{wanted}/")
            return None
        touch(self.store, f"{kind}/{wanted}")
        self._opened[kind] = opened
        return opened.manifest

    def _make(
        self, stage: Stage, kind: str, wanted: str, shard: int | None, lease: Lease | None
    ) -> tuple[Manifest, bool]:
        """The manifest that stands, and whether it is this run's."""
        self.progress(f"{stage.name}: {stage.summary}" + (f", shard {shard}" if shard is not None else ""))
        inputs = self._inputs(stage, shard)
        scratch = self.store.scratch()
        try:
            (scratch / DATA).mkdir()
            with held(lock_of(scratch)), work_folder(scratch.parent, f"{kind}-{wanted}") as work:
                with CostMeter() as meter:
                    context = StageContext(
                        settings=self._resolved,
                        as_of=self.as_of,
                        lake=self.lake,
                        inputs=inputs,
                        data=scratch / DATA,
                        spark=self.shared_spark or self._own_spark,
                        progress=self._told_by(lease),
                        shard=shard,
                        work=work,
                        erased=tuple(sorted(self._erased)),
                    )
                    result: StageResult = _module_of(stage).run(context)
                self._refuse_moved_lake(stage)
                if lease:
                    lease.writing(**({} if stage.parents else {"lake": files_of(self.lake)}))
                manifest = self._manifest(stage, kind, wanted, result, meter)
                made = write_artifact(self.store, scratch, manifest, lease)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self.progress(f"{stage.name}: {made.rows:,} rows in {made.cost['wall_s']:.1f} s")
        return made, made.cost == manifest.cost

    def _manifest(self, stage: Stage, kind: str, wanted: str, result: StageResult, meter: CostMeter) -> Manifest:
        return Manifest(
            kind=kind,
            artifact_id=wanted,
            as_of=format_time(self.as_of),
            parents=self._parent_ids(stage),
            settings=self._settings_of(stage),
            seed=self.settings.run.seed,
            code_version=VERSION,
            rows=result.rows,
            content_hash=result.content_hash,
            files=(),
            metrics=result.metrics,
            cost=meter.as_dict(),
        )

    def _told_by(self, lease: Lease | None) -> Callable[[str], None]:
        """Progress of a stage, which stops where it is no longer this run's to make."""

        def tell(line: str) -> None:
            if lease and lease.lost:
                raise lease.lost
            self.progress(line)

        return tell

    def _refuse_moved_lake(self, stage: Stage) -> None:
        """A graph's id names the lake it was built from, so that lake must still be what it was."""
        from infra.lake import lake_fingerprint

        if not stage.parents and lake_fingerprint(self.lake) != self._lake_fingerprint:
            raise InputError(f"{self.lake}: changed while it was read", "Run again once its writers have finished.")

    def _inputs(self, stage: Stage, shard: int | None) -> dict[str, Parent]:
        unread = stage.whole_only if shard is not None else ()
        inputs = {kind: _parent(self._open(kind)) for kind in stage.parents if kind not in unread}
        for named in self._named_parents(stage).values():
            from jobs.warm_start import open_named

            inputs |= {name: _parent(opened) for name, opened in open_named(self.store, named).items()}
        if stage.sharded and shard is None:
            for number in range(self.settings.index.shards):
                kind, wanted = self._identity(stage, number)
                if find_manifest(self.store, kind, wanted):
                    inputs[f"{kind}/{number}"] = _parent(open_artifact(self.store, kind, wanted))
        return inputs

    def _open(self, kind: str) -> OpenArtifact:
        """A finished artifact of this run, verified once."""
        if kind not in self._opened:
            wanted = self.artifact_id(kind)
            try:
                self._opened[kind] = open_artifact(self.store, kind, wanted)
            except NotFound:
                name = stage_of(kind).name
                raise PymkError(
                    f"{self.store.uri}: {kind}/{wanted} is not finished for {format_time(self.as_of)}",
                    f"Run `pymk stage {name}` with the same lake, as-of and settings first.",
                ) from None
        return self._opened[kind]


def _parent(opened: OpenArtifact) -> Parent:
    manifest = opened.manifest
    return Parent(manifest.artifact_id, opened.path, manifest.content_hash, manifest.__dict__)


def _module_of(stage: Stage) -> ModuleType:
    return importlib.import_module(f"jobs.{stage.name}")


def _between(first: str | None, until: str | None) -> list[str]:
    for name in (first, until):
        if name is not None and name not in STAGE_NAMES:
            raise UsageError(f"{name!r}: no such stage", f"Stages: {', '.join(STAGE_NAMES)}.")
    start = STAGE_NAMES.index(first) if first else 0
    end = STAGE_NAMES.index(until) + 1 if until else len(STAGE_NAMES)
    if start >= end:
        raise UsageError(f"--from {first} comes after --until {until}", "Swap them.")
    return list(STAGE_NAMES[start:end])
