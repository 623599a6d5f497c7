"""What live ranking needs of a release beside its tables: the ranking model and the index.

A part that cannot be opened is missing, not fatal: live ranking goes without the index, or does not take place, and the
part is tried again by and by.
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from infra.artifacts import find_manifest, open_artifact, open_sound_files
from infra.errors import CorruptArtifact
from infra.releases import Release
from infra.settings import LadderSettings
from infra.store import ObjectStore
from lookup_api.ann import Nearest
from lookup_api.ann_remote import RemoteShards, ShardProcess
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.scoring import RankingModel
from lookup_api.recent import WithRecent

log = logging.getLogger(__name__)

T = TypeVar("T")
RANKER, INDEX, RANKINGS, DELTA = "ranker", "index", "rankings", "serving_delta"
VIEW, RECENT = "now", "recent"
WARM_UP_ROWS = 16


class LiveParts:
    """model, nearest: None while missing. blend: how the night makes lists diverse, and how much (rank.blend,
    rank.diversity)."""

    def __init__(self, release: Release, settings: LadderSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._release = release
        self._settings = settings
        self._model_again = Breaker("the ranking model", 1, settings.breaker_wait_s, clock)
        self._index_again = Breaker("the index", 1, settings.breaker_wait_s, clock)
        self.model: RankingModel | None = None
        self.nearest: Nearest | None = None
        self.blend: tuple[str, float] = ("none", 0.0)

    def mend(self, store: ObjectStore) -> None:
        """Opens what is missing, unless it was tried a short while ago. Costs nothing when all is open."""
        if not self._settings.live_candidates:
            return
        if self.model is None and RANKER in self._release.artifacts:
            self.model = self._tried(self._model_again, lambda: self._open_model(store))
            if self.model is not None:
                self._model_again.succeeded()
        if (self.nearest is None or self.nearest.missing) and INDEX in self._release.artifacts:
            self.nearest = self._tried(self._index_again, lambda: self._open_all(store)) or self.nearest

    @property
    def has_model(self) -> bool:
        """Whether the release has one, open or not, and people are to be ranked by it."""
        return RANKER in self._release.artifacts and self._settings.live_candidates > 0

    @property
    def ranker_id(self) -> str | None:
        """Of the release's ranker artifact, open or not."""
        entry = self._release.artifacts.get(RANKER)
        return entry.artifact_id if entry else None

    @property
    def has_index(self) -> bool:
        """Whether the release has one, open or not."""
        return INDEX in self._release.artifacts

    def close(self) -> None:
        if self.nearest is not None:
            self.nearest.close()

    def _tried(self, breaker: Breaker, opened: Callable[[], T]) -> T | None:
        if not breaker.allows():
            return None
        try:
            return opened()
        except Exception as error:  # whatever a part dies of, the release is served without it
            breaker.failed()
            log.error("release %s is ranked live with less: %s", self._release.release_id, error)
            return None

    def _open_model(self, store: ObjectStore) -> RankingModel:
        entry = self._release.artifacts[RANKER]
        model = RankingModel.open(open_artifact(store, RANKER, entry.artifact_id).path)
        model.score(np.zeros((WARM_UP_ROWS, len(FEATURES)), np.float32))
        self.blend = self._nightly_blend(store)
        return model

    def _nightly_blend(self, store: ObjectStore) -> tuple[str, float]:
        entry = self._release.artifacts.get(RANKINGS)
        manifest = find_manifest(store, RANKINGS, entry.artifact_id) if entry else None
        rank = manifest.settings.get("rank", {}) if manifest else {}
        return str(rank.get("blend", "none")), float(rank.get("diversity", 0.0))

    def _open_all(self, store: ObjectStore) -> Nearest:
        """The index, and with it that of a delta, where anybody joined since its base."""
        base, entry = self._open_index(store), self._release.artifacts.get(DELTA)
        opened, damaged = open_sound_files(store, DELTA, entry.artifact_id, f"{RECENT}/") if entry else (None, None)
        if opened is None or not any(file.path.startswith(f"{RECENT}/") for file in opened.manifest.files):
            return base
        from lookup_api.ann_local import LocalShards

        if damaged:
            raise CorruptArtifact(f"{opened.path / min(damaged)}: missing or damaged", "Verify the release.")
        return WithRecent(base, LocalShards.open(opened.path / RECENT))

    def _open_index(self, store: ObjectStore) -> Nearest:
        if self._settings.ann_shards:
            return self._remote()
        from lookup_api.ann_local import LocalShards  # loads kernels: only for those who rank live

        artifact_id = self._release.artifacts[INDEX].artifact_id
        opened, damaged = open_sound_files(store, INDEX, artifact_id, f"{VIEW}/")
        common = [path for path in damaged if path.count("/") == 1]
        if common:
            raise CorruptArtifact(f"{opened.path / common[0]}: missing or damaged", "Verify the release.")
        nearest = LocalShards.open(opened.path / VIEW, damaged={path.split("/")[1] for path in damaged})
        nearest.find(np.zeros(nearest.dimensions, np.float32), 1, Deadline.after(60))
        if nearest.missing:
            self._index_again.failed()
        else:
            self._index_again.succeeded()
        return nearest

    def _remote(self) -> Nearest:
        own = self._settings
        processes = [
            ShardProcess(address, Breaker(f"shards at {address}", own.breaker_failures, own.breaker_wait_s))
            for address in own.ann_shards
        ]
        return RemoteShards(processes, self._release.artifacts[INDEX].artifact_id)
