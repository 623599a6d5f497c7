"""Follows CURRENT: opens a new release beside the old, swaps one reference, and closes the old after its last request.

A release that cannot be opened is refused and tried again ever more rarely; what was served stays served.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from infra.errors import CorruptArtifact, StoreError
from infra.release_files import Pointer, Release
from infra.settings import LadderSettings
from lookup_api.metrics import Metrics
from lookup_api.release_source import ReleaseSource, StoreSource
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
"""Time between tries of a release that was refused, at most."""
FOLLOWER_NICENESS = 10
FIRST_LOOK_S = 5.0
"""Time for the first look, after which a worker serves what its machine served last and goes on looking."""
MOST_DOUBLINGS = 10
"""Of the time between tries: without a bound the power of two leaves the range of a float after a day of failures."""


class ReleaseWatch:
    """The release that this process serves. Safe to use from any thread."""

    def __init__(
        self,
        store_uri: str,
        poll_s: float,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        ladder: LadderSettings | None = None,
        source: ReleaseSource | None = None,
    ) -> None:
        """ladder: what live ranking needs is opened by it; None where nothing is ranked live.

        source: where releases are found; the files of the store if not given.
        """
        self._source = source or StoreSource(store_uri)
        self._poll_s = poll_s
        self._metrics = metrics
        self._clock = clock
        self._ladder = ladder
        self._served: ServedRelease | None = None
        self._refused: dict[str, tuple[int, float]] = {}
        self._found = False
        self._swapping = threading.Lock()
        self._stop, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="release-watch", daemon=True)

    def start(self) -> None:
        """Looks once, so that a worker is ready before it takes requests, and then follows in the background.

        Where the releases cannot be looked for, or not soon, what this machine served last is served meanwhile.
        """
        self._thread.start()
        looked = self._looked.wait(FIRST_LOOK_S)
        if not self.ready and not (looked and self._found):
            self._recall()
        if not self.ready:
            self._looked.wait()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._swap(None)
        self._source.close()

    @property
    def ready(self) -> bool:
        return self._served is not None

    @contextmanager
    def hold(self) -> Iterator[ServedRelease | None]:
        """The served release, open until the block ends whatever is published meanwhile; None before the first."""
        release = self.take()
        try:
            yield release
        finally:
            if release is not None:
                release.give_back()

    def take(self) -> ServedRelease | None:
        """The served release, to be given back by the caller; None before the first."""
        while True:
            release = self._served
            if release is None or release.take():
                return release

    def look(self) -> None:
        """Serves what CURRENT names, if it is new and sound. Failures are logged and counted, never raised."""
        try:
            self._look()
            self._found = True
        except Exception as error:
            self._metrics.poll_failures.inc()
            log.warning("cannot look for a release in %s: %s", self._source.uri, error)

    def _recall(self) -> None:
        try:
            opened = self._source.recall(self._ladder)
        except Exception as error:
            log.error("no release can be looked for, and the copy of this machine is no use: %s", error)
            return
        if opened is not None and not self._swap(opened, only_first=True):
            opened.give_back()

    def _follow(self) -> None:
        self.look()
        self._looked.set()
        if sys.platform == "linux":
            # Priority is a thread's own there: verifying a release must not take the cores from requests.
            os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)
        while not self._stop.wait(self._poll_s):
            self.look()

    def _look(self) -> None:
        source, served = self._source, self._served
        if served is not None:
            source.mend(served)
        try:
            pointer = source.pointer()
        except (CorruptArtifact, StoreError) as error:
            if served is not None:
                raise
            log.error("CURRENT cannot be read, so the newest release that opens is served: %s", error)
            withdrawn = source.withdrawn()
            found = [r.release_id for r in reversed(source.releases()) if not withdrawn & {r.release_id, r.nightly}]
            self._fall_back(found, "CURRENT")
            return
        if pointer is None and served is None and not self._found:
            log.warning(
                "no release in %s yet: `pymk run` makes one, which is served as soon as it is there", source.uri
            )
        if pointer is None or (served is not None and served.release_id == pointer.release_id):
            return
        if not self._try(pointer.release_id) and served is None:
            self._fall_back(earlier(source.releases(), pointer), pointer.release_id)

    def _fall_back(self, release_ids: Sequence[str], instead_of: str) -> None:
        for release_id in release_ids:
            if self._try(release_id):
                log.error("serving %s until %s can be read", release_id, instead_of)
                return

    def _try(self, release_id: str) -> bool:
        """Opens and serves a release; false when it is refused now, or was and it is not yet time to try again."""
        failures, again = self._refused.get(release_id, (0, 0.0))
        if failures and self._clock() < again:
            return False
        try:
            opened = self._source.open(release_id, self._ladder)
        except Exception as error:  # whatever it died of, another release may open
            wait = min(LONGEST_WAIT_S, self._poll_s * 2 ** min(failures, MOST_DOUBLINGS))
            self._refused[release_id] = (failures + 1, self._clock() + wait)
            self._metrics.refused.inc()
            log.error("refused release %s, next try in %.0f s: %s", release_id, wait, error)
            return False
        self._refused.pop(release_id, None)
        self._swap(opened)
        return True

    def _swap(self, opened: ServedRelease | None, only_first: bool = False) -> bool:
        """only_first: unless something is served already; then nothing is done and the answer is False."""
        with self._swapping:
            if only_first and self._served is not None:
                return False
            before, self._served = self._served, opened
        if opened is not None:
            was = before.release_id if before else None
            self._metrics.serving(opened.release_id, opened.as_of_s, was, opened.night_s)
            log.info("serving release %s as of %s", opened.release_id, opened.as_of)
        if before is not None:
            before.give_back()
        return True


def earlier(listed: Sequence[Release], pointer: Pointer) -> list[str]:
    """Releases to serve in place of the one that CURRENT names: those it named before, then others; newest first.

    Never a newer one, nor one that was rolled back from. listed: oldest first; CURRENT's own may be missing from it, so
    times are taken from the ids.
    """
    current = _time_of(pointer.release_id)
    found = [
        release.release_id
        for release in reversed(listed)
        if _time_of(release.release_id) < current
        or (_time_of(release.release_id) == current and release.release_id in pointer.history)
        if release.release_id != pointer.release_id and not pointer.has_withdrawn(release)
    ]
    return sorted(found, key=lambda release_id: release_id not in pointer.history)


def _time_of(release_id: str) -> str:
    """The as-of that a release's id starts with, to the second: sorts as the times do."""
    return release_id.partition("-")[0]
