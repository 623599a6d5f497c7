"""20 candidates in 8 dimensions by a recipe that any language can follow, and the file of others' picks of them.

Numbers come from s = (1103515245 s + 12345) mod 2^31, x = s / 2^31: embeddings, row by row, from seed 12345, 2 x - 1
scaled to unit rows; relevance from seed 777.
"""

import json
from typing import Any

import pytest
import torch

from tests.suites.real_graphs import SHARED

FILE = SHARED / "eval" / "golden_diversity.json"
in_file = pytest.mark.skipif(not FILE.is_file(), reason="the shared picks are not here")


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """relevance float32 [1, 20], embeddings float32 [1, 20, 8], valid bool [1, 20]."""
    rows = torch.tensor(_numbers(12345, 160), dtype=torch.float64).reshape(20, 8) * 2 - 1
    rows = rows / rows.norm(dim=1, keepdim=True)
    return torch.tensor([_numbers(777, 20)]), rows.float()[None], torch.ones(1, 20, dtype=torch.bool)


def shared_picks() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def _numbers(state: int, count: int) -> list[float]:
    drawn = []
    for _ in range(count):
        state = (1103515245 * state + 12345) % 2**31
        drawn.append(state / 2**31)
    return drawn
