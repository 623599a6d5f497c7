"""What is allocated comes and goes with what is held."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from lookup_api.leaves.process_memory import ProcessMemory, glibc_mallinfo2

HELD = 64 << 20
NOISE = 8 << 20


def allocated(registry: CollectorRegistry, by: str) -> float:
    value = registry.get_sample_value("pymk_leaf_allocated_bytes", {"by": by})
    assert value is not None
    return value


@pytest.mark.skipif(glibc_mallinfo2() is None, reason="malloc is not glibc's, which tells nothing")
@pytest.mark.parametrize(
    ("by", "hold"), [("malloc", lambda: np.ones(HELD, np.uint8)), ("arrow", lambda: pa.allocate_buffer(HELD))]
)
def test_what_is_held_is_told_and_what_is_let_go_is_not(by: str, hold: Callable[[], object]) -> None:
    registry = CollectorRegistry()
    registry.register(ProcessMemory())
    before = allocated(registry, by)
    held = hold()
    assert allocated(registry, by) - before == pytest.approx(HELD, abs=NOISE)
    del held
    assert allocated(registry, by) == pytest.approx(before, abs=NOISE)


@pytest.mark.skipif(glibc_mallinfo2() is None, reason="malloc is not glibc's, which tells nothing")
def test_what_malloc_keeps_free_is_told() -> None:
    registry = CollectorRegistry()
    registry.register(ProcessMemory())
    many = [np.ones(1100, np.uint8) for _ in range(20_000)]
    last = np.ones(1100, np.uint8)
    before = registry.get_sample_value("pymk_leaf_malloc_free_bytes")
    del many
    after = registry.get_sample_value("pymk_leaf_malloc_free_bytes")
    assert after is not None
    assert before is not None
    assert after - before > 10_000_000
    del last  # what is above those that went: the system would get them back otherwise


def test_objects_of_python_are_counted() -> None:
    registry = CollectorRegistry()
    registry.register(ProcessMemory())
    before = registry.get_sample_value("pymk_leaf_python_blocks") or 0.0
    held = [object() for _ in range(100_000)]
    assert (registry.get_sample_value("pymk_leaf_python_blocks") or 0.0) - before > len(held) * 0.9
