"""Real graphs with a quality harness beside them, where there are any: next to the checkout, in `shared`."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2].parent / "shared"
SMALL = "fb100-Caltech36"


def small_campus() -> tuple[Any, Any]:
    """The harness's module and its graph of a small campus; skips the test where they are not."""
    folder = SHARED / "data" / SMALL
    if not folder.exists():
        pytest.skip("the real graphs are not here")
    spec = importlib.util.spec_from_file_location("harness", SHARED / "eval" / "graph.py")
    assert spec
    assert spec.loader
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    return harness, harness.Graph(folder)
