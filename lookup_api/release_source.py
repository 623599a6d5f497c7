"""Where a worker finds the releases to serve: the files of the object store, or a host that they were loaded into."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from infra.artifacts import local_copy
from infra.errors import PymkError
from infra.loaded_releases import LoadedReleases
from infra.release_files import Pointer, Release
from infra.release_readers import ReadingAside
from infra.release_records import withdrawn_releases
from infra.releases import ReleaseStore
from infra.settings import LadderSettings
from infra.store import ObjectStore, open_store
from infra.table_hosts import TableHost, open_host
from lookup_api.breaker import Breaker
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)


class ReleaseSource(Protocol):
    """Used by one thread. Raises PymkError where what is asked for cannot be read."""

    uri: str

    def pointer(self) -> Pointer | None:
        """What is served, and was; None before the first release."""
        ...

    def releases(self) -> list[Release]:
        """All there are, oldest first."""
        ...

    def withdrawn(self) -> set[str]:
        """Ids of releases that somebody rolled back from, where the pointer cannot be asked."""
        ...

    def open(self, release_id: str, ladder: LadderSettings | None) -> ServedRelease:
        """A release, verified and open; with settings of the ladder, what ranks live too."""
        ...

    def recall(self, ladder: LadderSettings | None) -> ServedRelease | None:
        """What this machine served last, of its own copy; None where it keeps none. From any thread."""
        ...

    def mend(self, served: ServedRelease) -> None:
        """Tries again to open what the served release lacks."""
        ...

    def close(self) -> None: ...


class StoreSource:
    """Releases as files of the object store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: ObjectStore | None = None
        self._reading: ReadingAside | None = None

    def pointer(self) -> Pointer | None:
        return ReleaseStore(self._store()).pointer()

    def releases(self) -> list[Release]:
        return ReleaseStore(self._store()).list()

    def withdrawn(self) -> set[str]:
        return set(withdrawn_releases(self._store()))

    def open(self, release_id: str, ladder: LadderSettings | None) -> ServedRelease:
        store = self._store()
        release = ReleaseStore(store).get(release_id)
        opened = ServedRelease.open(store, release, ladder)
        self._keep(release)
        self._stop_reading()
        self._reading = ReadingAside(store, release_id)
        return opened

    def recall(self, ladder: LadderSettings | None) -> ServedRelease | None:
        copy = local_copy(self.uri)
        release = ReleaseStore(copy).current() if copy else None
        return ServedRelease.open(copy, release, ladder) if copy and release else None

    def _keep(self, release: Release) -> None:
        """Notes, beside the copies of its artifacts, what is served; without it a worker starts with the store only."""
        copy = local_copy(self.uri)
        if copy is None:
            return
        try:
            ReleaseStore(copy).keep_copy(release)
        except (PymkError, OSError) as error:
            log.warning("no copy of release %s is kept: %s", release.release_id, error)

    def mend(self, served: ServedRelease) -> None:
        served.mend(self._store())

    def close(self) -> None:
        self._stop_reading()

    def _stop_reading(self) -> None:
        """Of the release that was opened before, whose files stay open by themselves for the requests that have it."""
        if self._reading is not None:
            self._reading.end()
            self._reading = None

    def _store(self) -> ObjectStore:
        if self._opened is None:
            self._opened = open_store(self.uri)
        return self._opened


class HostSource:
    """Releases whose tables were loaded into a host. Only what ranks live is read from the object store.

    Without the object store releases are followed all the same, and ranked live once it is there again.
    """

    def __init__(
        self, host: TableHost, store_uri: str, wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """wait_s: between the first tries to open the object store."""
        self.uri = host.uri
        self._host = host
        self._loaded = LoadedReleases(host)
        self._store_uri = store_uri
        self._store_again = Breaker("the object store", 1, wait_s, clock)
        self._opened: ObjectStore | None = None

    def pointer(self) -> Pointer | None:
        return self._loaded.pointer()

    def releases(self) -> list[Release]:
        return self._loaded.releases()

    def withdrawn(self) -> set[str]:
        return set()

    def open(self, release_id: str, ladder: LadderSettings | None) -> ServedRelease:
        release = self._loaded.get(release_id)
        opened = ServedRelease.of(release, self._loaded.open(release_id), ladder)
        self.mend(opened)
        return opened

    def recall(self, ladder: LadderSettings | None) -> None:
        """The tables are in the host, or nowhere."""

    def mend(self, served: ServedRelease) -> None:
        store = self._store()
        if store is not None:
            served.mend(store)

    def close(self) -> None:
        self._host.close()

    def _store(self) -> ObjectStore | None:
        if self._opened is None and self._store_again.allows():
            try:
                self._opened = open_store(self._store_uri)
                self._store_again.succeeded()
            except (PymkError, OSError) as error:
                self._store_again.failed()
                log.error("cannot open %s: %s", self._store_uri, error)
        return self._opened


def source_of(store_uri: str, tables_uri: str, tables_timeout_s: float, poll_s: float) -> ReleaseSource:
    """tables_uri: of a host; empty for the files of the store. Raises UsageError for what is no host."""
    if not tables_uri:
        return StoreSource(store_uri)
    return HostSource(open_host(tables_uri, tables_timeout_s), store_uri, poll_s)
