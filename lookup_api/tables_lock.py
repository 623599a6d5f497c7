"""Keeps the served release's tables in memory (`api.lock_tables`): beside the requests, and again where it was refused.

What is not locked is served all the same: pages that come and go make answers slow now and then, not wrong.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable

from prometheus_client import Gauge

from infra.memory_lock import NotLocked
from lookup_api.release_watch import FOLLOWER_NICENESS
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between looks: a release that was swapped in has room once the one before is closed, here and by other workers."""


class TablesLock:
    """take: the served release, to be given back. locked: told how many bytes are."""

    def __init__(self, take: Callable[[], ServedRelease | None], locked: Gauge, every_s: float = LOOK_S) -> None:
        self._take = take
        self._locked = locked
        self._every_s = every_s
        self._refused = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tables-lock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Without waiting for a large file that is being read."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> None:
        """Locks what is not locked yet. A refusal is logged once a release."""
        release = self._take()
        if release is None:
            return
        try:
            release.keep_in_memory()
        except (NotLocked, OSError) as error:
            if self._refused != release.release_id:
                log.error("not all tables of %s are locked in memory: %s", release.release_id, error)
            self._refused = release.release_id
        finally:
            self._locked.set(release.locked_bytes)
            release.give_back()

    def _follow(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)  # of this thread: requests come first
        self.look()
        while not self._stop.wait(self._every_s):
            self.look()
