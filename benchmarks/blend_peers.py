"""The published algorithms of SSD and greedy DPP for one user, in plain numpy: the peers of `benchmarks.blend`."""

import math

import numpy as np


def ssd_of_rsdiv(relevance: np.ndarray, rows: np.ndarray, picks: int, gamma: float) -> list[int]:
    """Deflates all rows by every pick; the volume is that of all picks."""
    left = rows.copy()
    chosen = [int(relevance.argmax())]
    volume = gamma * np.linalg.norm(left[chosen[0]])
    while len(chosen) < picks:
        latest = left[chosen[-1]]
        length = np.linalg.norm(latest)
        if length > 1e-7:
            latest = latest / length
            left -= np.outer(left @ latest, latest)
        volumes = np.linalg.norm(left, axis=1) * volume
        scores = volumes + relevance
        scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        volume = volumes[chosen[-1]]
    return chosen


def fast_map_dpp(kernel: np.ndarray, picks: int, window: int | None = None) -> list[int]:
    """Chen's incremental Cholesky rows; with a window, the oldest is rotated out and given back (Givens)."""
    shares, factor = np.zeros((picks, len(kernel))), np.zeros((picks, picks))
    residuals, oldest = kernel.diagonal().copy(), 0
    chosen = [int(residuals.argmax())]
    while len(chosen) < picks:
        latest, k = chosen[-1], len(chosen) - 1
        own, height = shares[oldest:k, latest].copy(), math.sqrt(residuals[latest])
        factor[k, oldest:k], factor[k, k] = own, height
        shares[k] = (kernel[latest] - own @ shares[oldest:k]) / height
        residuals -= shares[k] ** 2
        if window is not None and len(chosen) >= window:
            rotate_out(shares, factor, oldest, k)
            residuals += shares[oldest] ** 2
            oldest += 1
        residuals[latest] = -np.inf
        chosen.append(int(residuals.argmax()))
    return chosen


def rotate_out(shares: np.ndarray, factor: np.ndarray, oldest: int, k: int) -> None:
    for i in range(oldest + 1, k + 1):
        length = math.hypot(factor[i, i], factor[i, oldest])
        cosine, sine = length / factor[i, i], factor[i, oldest] / factor[i, i]
        factor[i, i] = length
        for array, part in ((factor.T, slice(i + 1, k + 1)), (shares, slice(None))):
            array[i, part] = (array[i, part] + sine * array[oldest, part]) / cosine
            array[oldest, part] = cosine * array[oldest, part] - sine * array[i, part]
