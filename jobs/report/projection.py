"""A map of the embeddings: a sample of users on the two axes along which embeddings differ most."""

from typing import Any

import numpy as np
import numpy.typing as npt

USERS = 1500
DIGITS = 3


def project(vectors: npt.NDArray[np.float32], band: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
    """{"x", "y", "band": one for each user of a seeded sample, "shares": of the variance on the two axes}.

    The two first principal components (Pearson, 1901) of vectors float32 [N, D]; band int64 [N] is handed through. An
    axis points to where its largest part is positive. {} for fewer than three users.
    """
    rows = _sampled(len(vectors), seed)
    if len(rows) < 3:
        return {}
    points = np.asarray(vectors[rows], np.float64)
    points -= points.mean(axis=0)
    variance, axes = np.linalg.eigh(points.T @ points)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    x, y = (points @ axes).round(DIGITS).T
    shares = variance[::-1][:2] / max(variance.sum(), 1e-12)
    return {"x": x.tolist(), "y": y.tolist(), "band": band[rows].tolist(), "shares": shares.round(DIGITS).tolist()}


def _sampled(users: int, seed: int) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(np.random.SeedSequence([seed, USERS]))
    chosen: npt.NDArray[np.int64] = np.sort(rng.choice(users, min(USERS, users), replace=False))
    return chosen
