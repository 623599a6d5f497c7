"""Lists of the served release that routed models ranked (infra.variants), open for as long as that release is."""

import logging
import weakref
from collections.abc import Collection
from weakref import WeakKeyDictionary

from infra.artifacts import open_artifact
from infra.kv import RANKINGS
from infra.lmdb_tables import LmdbTables
from infra.model_routes import ModelRef
from infra.overlay_tables import OverlayTables
from infra.releases import ReleaseStore
from infra.store import ObjectStore
from infra.variants import KIND, find_variant
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)


class _OfRelease:
    """nightly: id of the release that the lists are of. tables: by model, with their artifact's id.

    What was opened stays open until nobody holds the release any more: a request may still read it.
    """

    def __init__(self, nightly: str) -> None:
        self.nightly = nightly
        self.tables: dict[str, tuple[str, LmdbTables]] = {}
        self.opened: list[LmdbTables] = []


class VariantLists:
    """One thread follows, any may read."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[ServedRelease, _OfRelease] = WeakKeyDictionary()
        self._told: set[str] = set()

    def get(self, release: ServedRelease, model: str, user_id: int) -> bytes | None:
        """The list that a model ranked for a user; None where it did for none of them, or a delta has a newer one."""
        found = self._of.get(release)
        opened = found.tables.get(model) if found else None
        tables = release.tables
        if opened is None or (isinstance(tables, OverlayTables) and user_id in tables.changed):
            return None
        return opened[1].get(RANKINGS, user_id)

    def follow(self, store: ObjectStore, release: ServedRelease, models: Collection[ModelRef]) -> bool:
        """Opens what the models made of the release since the last look; whether that is anything.

        Lists that cannot be opened are logged, once, and looked for again. Raises PymkError where the store cannot be
        read.
        """
        if not models:
            return False
        found = self._of.get(release)
        if found is None:
            found = self._of[release] = _OfRelease(ReleaseStore(store).get(release.release_id).nightly)
            weakref.finalize(release, _close, found.opened).atexit = False
        opened = [self._opened(store, found, model) for model in models]
        return any(opened)

    def _opened(self, store: ObjectStore, found: _OfRelease, model: ModelRef) -> bool:
        name = str(model)
        try:
            variant = find_variant(store, found.nightly, model)
            before = found.tables.get(name)
            if variant is None or (before is not None and before[0] == variant.artifact_id):
                return False
            tables = LmdbTables(open_artifact(store, KIND, variant.artifact_id).path)
        except Exception as error:  # whatever is wrong with them, the release has lists of its own
            if name not in self._told:
                log.error("lists of %s by %s cannot be opened: %s", found.nightly, name, error)
            self._told.add(name)
            return False
        self._told.discard(name)
        found.opened.append(tables)
        found.tables[name] = (variant.artifact_id, tables)
        log.info("serving %d lists of %s by %s", variant.users, found.nightly, name)
        return True


def _close(opened: list[LmdbTables]) -> None:
    for tables in opened:
        tables.close()
