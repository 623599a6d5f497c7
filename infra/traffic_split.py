"""Which users a share of the traffic is: the same ones in every process, at night and live, and more as it grows."""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of splitmix64 (Steele, Lea and Flood, OOPSLA 2014; Vigna's mixing)."""


def place_of(surface: str, salt: str, user_id: int) -> float:
    """Where the user stands in [0, 1), by surface and salt; a share holds those below it."""
    x = ((user_id & _MASK) ^ _seed(surface, salt)) + _STEP & _MASK
    x = (x ^ x >> 30) * _FIRST & _MASK
    x = (x ^ x >> 27) * _SECOND & _MASK
    return float((x ^ x >> 31) >> 11) * 2.0**-53


def places_of(surface: str, salt: str, user_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`place_of` of many users, float64 [n]."""
    with np.errstate(over="ignore"):
        x = (user_ids.astype(np.int64).view(np.uint64) ^ np.uint64(_seed(surface, salt))) + np.uint64(_STEP)
        x = (x ^ x >> np.uint64(30)) * np.uint64(_FIRST)
        x = (x ^ x >> np.uint64(27)) * np.uint64(_SECOND)
    found: npt.NDArray[Any] = (x ^ x >> np.uint64(31)) >> np.uint64(11)
    return found.astype(np.float64) * 2.0**-53


@lru_cache(maxsize=1024)
def _seed(surface: str, salt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{surface}\0{salt}".encode()).digest()[:8], "little")
