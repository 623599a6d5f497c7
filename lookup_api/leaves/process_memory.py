"""What a leaf process holds of its memory: tells one that leaks from one whose allocator keeps what was given back."""

import ctypes
import sys
from collections.abc import Callable, Iterator

import pyarrow as pa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd",
    "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """As glibc's malloc.h has it, of all arenas together. uordblks, hblkhd: bytes in use; fordblks: bytes kept free."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


class ProcessMemory(Collector):
    """Bytes that this process allocated and did not free, and those that malloc keeps free, as gauges.

    Of malloc where it is glibc's of 2.33 or later, of Arrow's own pool, and the blocks of Python's objects, whose bytes
    Python has from the system itself. A scrape takes the lock of each of malloc's arenas for a moment.
    """

    def __init__(self) -> None:
        self._mallinfo = glibc_mallinfo2()

    def collect(self) -> Iterator[Metric]:
        says = "Bytes that are allocated, by whom; malloc's freed ones that a thread keeps for itself count."
        allocated = GaugeMetricFamily("pymk_leaf_allocated_bytes", says, labels=["by"])
        allocated.add_metric(["arrow"], pa.total_allocated_bytes())
        if self._mallinfo:
            found = self._mallinfo()
            allocated.add_metric(["malloc"], found.uordblks + found.hblkhd)
            yield GaugeMetricFamily("pymk_leaf_malloc_free_bytes", "Bytes that malloc keeps free.", found.fordblks)
        yield allocated
        yield GaugeMetricFamily("pymk_leaf_python_blocks", "Blocks of Python's objects.", sys.getallocatedblocks())


def glibc_mallinfo2() -> Callable[[], _Mallinfo2] | None:
    """None where there is no such function: with another libc."""
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo2
    return function
