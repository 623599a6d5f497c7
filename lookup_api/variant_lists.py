"""Lists of the served release that routed models ranked (infra.variants), open for as long as that release is."""

import logging
import time
import weakref
from collections.abc import Callable, Collection
from weakref import WeakKeyDictionary

from infra.artifacts import open_artifact
from infra.kv import RANKINGS
from infra.lmdb_tables import LmdbTables
from infra.model_routes import ModelRef
from infra.overlay_tables import OverlayTables
from infra.releases import ReleaseStore
from infra.store import ObjectStore
from infra.variants import KIND, find_variant
from lookup_api.breaker import Breaker
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)


class _OfRelease:
    """nightly: id of the release that the lists are of. tables: by model, with their artifact's id. breakers: by model,
    open while its lists cannot be.

    What was opened stays open until nobody holds the release any more: a request may still read it.
    """

    def __init__(self, nightly: str) -> None:
        self.nightly = nightly
        self.tables: dict[str, tuple[str, LmdbTables]] = {}
        self.opened: list[LmdbTables] = []
        self.breakers: dict[str, Breaker] = {}


class VariantLists:
    """One thread follows, any may read."""

    def __init__(self, poll_s: float, counts: LadderMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        """poll_s: the first wait after lists could not be opened."""
        self._of: WeakKeyDictionary[ServedRelease, _OfRelease] = WeakKeyDictionary()
        self._poll_s, self._counts, self._clock = poll_s, counts, clock

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

        Lists that cannot be opened are logged, counted and tried again after waits that grow. Raises PymkError where
        the store cannot be read.
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
        breaker = found.breakers.get(name)
        if breaker is None:
            breaker = found.breakers[name] = Breaker(f"lists by {name}", 1, self._poll_s, self._clock)
        if not breaker.allows():
            return False
        try:
            newer = _open_newer(store, found, model)
        except Exception as error:  # whatever is wrong with them, the release has lists of its own
            breaker.failed()
            self._counts.lists_refused.labels(name).inc()
            log.error("lists of %s by %s cannot be opened: %s", found.nightly, name, error)
            return False
        breaker.succeeded()
        return newer


def _open_newer(store: ObjectStore, found: _OfRelease, model: ModelRef) -> bool:
    """Opens a model's lists, unless there are none or they are open; whether it did."""
    name = str(model)
    variant = find_variant(store, found.nightly, model)
    before = found.tables.get(name)
    if variant is None or (before is not None and before[0] == variant.artifact_id):
        return False
    tables = LmdbTables(open_artifact(store, KIND, variant.artifact_id).path)
    found.opened.append(tables)
    found.tables[name] = (variant.artifact_id, tables)
    log.info("serving %d lists of %s by %s", variant.users, found.nightly, name)
    return True


def _close(opened: list[LmdbTables]) -> None:
    for tables in opened:
        tables.close()
