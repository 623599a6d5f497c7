"""What a piece of work cost: wall time, CPU time and peak memory of this process and its children."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import psutil

T = TypeVar("T")

SAMPLE_S = 0.25
LOOK_SHARE = 0.02
"""Share of the time that looking may take: the kernel walks the page tables of the measured processes for it."""


class CostMeter:
    """Context manager. Peak memory is the largest sum of proportional set sizes seen, sampled every SAMPLE_S seconds,
    less often where that would take more than LOOK_SHARE of the time.

    Proportional sizes count a page shared by several processes (a memory map) once.
    """

    def __init__(self) -> None:
        self.wall_s = 0.0
        self.cpu_s = 0.0
        self.peak_memory_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._cpu_of: dict[int, float] = {}

    def __enter__(self) -> "CostMeter":
        self._start_wall = time.perf_counter()
        self._start_cpu = _cpu_by_process()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._cpu_of |= _cpu_by_process()
        self._look_at_memory()
        self.wall_s = time.perf_counter() - self._start_wall
        self.cpu_s = sum(cpu - self._start_cpu.get(pid, 0.0) for pid, cpu in self._cpu_of.items())

    def as_dict(self) -> dict[str, float]:
        return {
            "wall_s": round(self.wall_s, 3),
            "cpu_s": round(self.cpu_s, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def _sample(self) -> None:
        due = 0.0
        while not self._stop.wait(SAMPLE_S):
            self._cpu_of |= _cpu_by_process()
            start = time.perf_counter()
            if start >= due:
                self._look_at_memory()
                due = start + (time.perf_counter() - start) / LOOK_SHARE

    def _look_at_memory(self) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, _memory())


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gives back, and the seconds it took."""
    start = time.perf_counter()
    made = work()
    return made, time.perf_counter() - start


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _cpu_by_process() -> dict[int, float]:
    found = {}
    for process in _family():
        try:
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return found


def _memory() -> int:
    total = 0
    for process in _family():
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
