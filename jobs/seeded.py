"""Random numbers that belong to a key, not to a place in a stream, so that no order or partitioning changes them."""

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def seeded_uniform(seed: int, *keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each row of the keys, float64 [n].

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over the seed and each key in turn.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.full(len(keys[0]), seed, np.uint64) + _GOLDEN)
        for key in keys:
            state = _mix((state ^ np.ascontiguousarray(key, np.int64).view(np.uint64)) + _GOLDEN)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
