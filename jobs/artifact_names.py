"""The ids of what a run makes: by kind, inputs, settings and as-of, so that what is finished is found, not redone."""

from datetime import datetime
from functools import cached_property
from typing import Any

from infra.artifacts import artifact_id
from infra.erasures import digest_of, erased_people
from infra.settings import Settings
from infra.store import ObjectStore
from jobs.stages import Stage, stage_of
from jobs.version import VERSION


class ArtifactNames:
    """Of a run over a lake, a store, an as-of and settings. graph_id: pins a graph built earlier from this lake."""

    lake: str
    store: ObjectStore
    as_of: datetime
    settings: Settings
    graph_id: str | None

    def artifact_id(self, kind: str) -> str:
        return self._identity(stage_of(kind), None)[1]

    def _identity(self, stage: Stage, shard: int | None) -> tuple[str, str]:
        """The kind and id of what the stage makes."""
        if stage.kind == "graph" and self.graph_id:
            return stage.kind, self.graph_id
        kind = stage.kind if shard is None else f"{stage.kind}_shard"
        settings = self._settings_of(stage) | ({"shard": shard} if shard is not None else {})
        return kind, artifact_id(kind, self._parent_ids(stage), settings, self.as_of, VERSION)

    def _parent_ids(self, stage: Stage) -> dict[str, str]:
        if not stage.parents:
            erased = {"erased": digest_of(self._erased)} if self._erased else {}
            return {"lake": self._lake_fingerprint} | erased
        return {kind: self.artifact_id(kind) for kind in stage.parents} | self._named_parents(stage)

    def _named_parents(self, stage: Stage) -> dict[str, str]:
        """The artifact that a setting names: input -> artifact id."""
        named = self.settings.encoder.warm_start if stage.kind == "encoder" else ""
        return {"warm_start": named} if named else {}

    @cached_property
    def _lake_fingerprint(self) -> str:
        from infra.lake import lake_fingerprint

        return lake_fingerprint(self.lake)

    @cached_property
    def _erased(self) -> dict[int, int]:
        return erased_people(self.store)

    def _settings_of(self, stage: Stage) -> dict[str, Any]:
        return {name: self._resolved.section(name) for name in ("run", *stage.sections)}

    @cached_property
    def _resolved(self) -> Settings:
        """The settings with what `auto` means on this machine: an id names one content."""
        from jobs.hardware import resolved

        return resolved(self.settings)
