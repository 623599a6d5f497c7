"""Forgives what is marked once this process is to end: whatever it has in hand then is cut off, and nobody's fault."""

import threading
from collections.abc import Callable
from multiprocessing.util import Finalize

from lookup_api import model_marks

LOOK_S = 0.25


class EndWatch:
    """Starts its own thread with `start`."""

    def __init__(self, is_draining: Callable[[], bool]) -> None:
        self._is_draining = is_draining
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="end-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()
        # Of a worker that is told to end and no other: multiprocessing, which started it, skips atexit.
        self._at_exit = Finalize(None, model_marks.forgive, exitpriority=0)

    def stop(self) -> None:
        self._at_exit.cancel()
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            if self._is_draining():
                model_marks.forgive()
                return
