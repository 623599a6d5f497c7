"""Ends requests whose bodies do not come: a worker may have one thread, and who reads a body waits for its caller.

The server has no time limit for bodies, a reading cannot be given up, and no request knows its connection. So a thread
looks after those that read: where one has waited for too long, the connections that it may be waiting for are found by
what the kernel knows of them, and their reading side is closed. The reading then ends.
"""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

FILES = "/proc/self/fd"
SHARE = 0.1
"""Of a worker's time, that bodies may be waited for; afterwards those that are not there are ended soon."""
SOON_S = 0.005
IDLE_S = 1.0
TICK_MS, AGAIN_S = 10, 0.1
"""How exact the kernel's milliseconds are; after how long who seems to have been answered at once is looked at too."""
_SENT, _RECEIVED, _BYTES, _ANSWERS = 44, 52, 128, 156
"""Places in Linux's struct tcp_info: milliseconds since bytes were sent, and came, how many came, packets sent."""


@dataclass
class Reading:
    address: str
    port: str
    since_s: float
    patience_s: float
    ended: bool = False


class SlowBodies:
    """patience_s: how long a body may take. Thread-safe. Start it once; stop it with the app."""

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_s = self._left_s = patience_s
        self._clock = clock
        self._refilled_s = clock()
        self._readings: dict[int, Reading] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-bodies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def reading(self, environ: Mapping[str, Any]) -> Iterator[Reading]:
        """While a body is read. Its `ended` says afterwards whether it was given up."""
        now = self._clock()
        self._left_s = min(self._patience_s, self._left_s + (now - self._refilled_s) * SHARE)
        self._refilled_s = now
        found = Reading(
            _plain(environ.get("REMOTE_ADDR", "")), environ.get("SERVER_PORT", ""), now, max(self._left_s, SOON_S)
        )
        name = threading.get_ident()
        self._readings[name] = found
        self._wake.set()
        try:
            yield found
        finally:
            del self._readings[name]
            self._left_s = max(0.0, self._left_s - (self._clock() - now))

    def _run(self) -> None:
        received: dict[int, int] = {}
        while not self._stop.is_set():
            readings = list(self._readings.values())
            if not readings:
                self._wake.clear()
                if not self._readings:
                    self._wake.wait(IDLE_S)
                received = {}
                continue
            now = self._clock()
            late = [one for one in readings if now - one.since_s >= one.patience_s]
            for one in late:
                one.ended = True
                received = end_stuck(one, now - one.since_s, received)
            soonest = min(one.since_s + one.patience_s for one in readings)
            self._stop.wait(max(SOON_S, soonest - now))


def end_stuck(reading: Reading, waited_s: float, before: Mapping[int, int]) -> dict[int, int]:
    """Closes the reading side of the connection that has been silent for the longest, if it has been since a reading
    began, and of those that still send bit by bit. Looks only at callers of the reading's address who wait for an
    answer: those whose last bytes came after the last that were sent to them.

    before: what the last call returned: bytes that came, by connection.
    """
    again = waited_s > reading.patience_s + AGAIN_S
    oldest: tuple[int, socket.socket] | None = None
    told: dict[int, int] = {}
    for number, one in _callers(reading):
        info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        sent_ms, silent_ms, answers = (struct.unpack_from("I", info, at)[0] for at in (_SENT, _RECEIVED, _ANSWERS))
        told[number] = struct.unpack_from("Q", info, _BYTES)[0]
        waits = told[number] and (not answers or sent_ms > silent_ms or (again and sent_ms == silent_ms))
        if waits and told[number] > before.get(number, told[number]):
            one.shutdown(socket.SHUT_RD)
        elif waits and silent_ms + TICK_MS >= waited_s * 1e3 and (oldest is None or silent_ms > oldest[0]):
            oldest = (silent_ms, one.dup())
    if oldest is not None:
        with oldest[1] as one, suppress(OSError):
            one.shutdown(socket.SHUT_RD)
    return told


def _callers(reading: Reading) -> Iterator[tuple[int, socket.socket]]:
    """Connections to this server's port from an address, by number; each is open until the next is asked for."""
    names = os.listdir(FILES) if os.path.isdir(FILES) else []
    for name in names:
        with suppress(OSError):  # closed meanwhile, or not connected
            if not os.readlink(f"{FILES}/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                inet = one.family in (socket.AF_INET, socket.AF_INET6)
                if (
                    inet
                    and str(one.getsockname()[1]) == reading.port
                    and _plain(one.getpeername()[0]) == reading.address
                ):
                    yield int(name), one


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
