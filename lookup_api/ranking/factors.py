"""Factors of the friendship matrix by implicit alternating least squares.

Hu, Koren and Volinsky, ICDM 2008, with the conjugate gradient steps of Takács, Pilászy and Tikk, RecSys 2011. A dot
product of two users' factors says how alike their wider circles are: it sees whole communities where walks see paths.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from infra.graph import Csr
from lookup_api.ranking.arrays import pair
from lookup_api.ranking.kernels import njit

FACTORS = 128
ROUNDS = 8
CONFIDENCE = 4.0
"""Weight of a friendship next to a pair that is not one."""
PENALTY = 0.05
STEPS = 3
"""Conjugate gradient steps a row; it starts from the row's last factors."""
REFIT_ROUNDS = 2
_CHUNK = 4096

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def factorise(friends: Csr, seed: int, threads: int) -> tuple[Float32, Float32]:
    """Factors of users as viewers and as candidates, float32 [N, FACTORS] each; zero for a user without friends.

    Rows are solved apart from each other, so the answer does not depend on the number of threads.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    alone = friends.degrees() == 0
    viewers, candidates = (0.01 * rng.standard_normal((friends.rows, FACTORS), dtype=np.float32) for _ in range(2))
    viewers[alone] = candidates[alone] = 0
    links = pair(friends)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            for solved, held in ((viewers, candidates), (candidates, viewers)):
                _solve(links, held, solved, pool)
    return viewers, candidates


def refit(viewers: Float32, candidates: Float32, friends: Csr, rows: Int64) -> None:
    """Solves some rows int64 of both factors anew, in place, against those of everybody else as they are.

    For users who joined, whose rows are zero, and for those whose friends changed, since `factorise`.
    """
    lengths = friends.degrees()[rows]
    links = (np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), friends.indices[friends.entries_of(rows)])
    for _ in range(REFIT_ROUNDS):
        for solved, held in ((viewers, candidates), (candidates, viewers)):
            some = np.where(lengths[:, None] > 0, solved[rows], np.float32(0))
            gram = _gram(held) + PENALTY * np.eye(held.shape[1], dtype=np.float32)
            _solve_rows(*links, held, gram, some, 0, len(rows))
            solved[rows] = some


Links = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]


def _solve(links: Links, held: Float32, solved: Float32, pool: ThreadPoolExecutor) -> None:
    """Solves every row of `solved` against `held`."""
    gram = _gram(held) + PENALTY * np.eye(held.shape[1], dtype=np.float32)

    def solve(start: int) -> None:
        _solve_rows(*links, held, gram, solved, start, min(start + _CHUNK, len(solved)))

    list(pool.map(solve, range(0, len(solved), _CHUNK)))


def _gram(rows: Float32) -> Float32:
    """rows' rows, summed in float64 over fixed chunks."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        total += chunk.T @ chunk
    return total.astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _apply(indptr, indices, held, gram, user, x, out):  # type: ignore[no-untyped-def]
    """out = (gram + sum over friends of (CONFIDENCE - 1) f f') x."""
    size = len(x)
    for i in range(size):
        total = np.float32(0)
        for j in range(size):
            total += gram[i, j] * x[j]
        out[i] = total
    for at in range(indptr[user], indptr[user + 1]):
        friend = held[indices[at]]
        dot = np.float32(0)
        for j in range(size):
            dot += friend[j] * x[j]
        dot *= np.float32(CONFIDENCE - 1)
        for j in range(size):
            out[j] += dot * friend[j]


@njit(cache=True, nogil=True, fastmath=True)
def _solve_rows(indptr, indices, held, gram, solved, start, end):  # type: ignore[no-untyped-def]
    size = held.shape[1]
    residual, direction, applied = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    for user in range(start, end):
        if indptr[user] == indptr[user + 1]:
            continue
        x = solved[user]
        _apply(indptr, indices, held, gram, user, x, applied)
        for j in range(size):
            residual[j] = -applied[j]
        for at in range(indptr[user], indptr[user + 1]):
            friend = held[indices[at]]
            for j in range(size):
                residual[j] += np.float32(CONFIDENCE) * friend[j]
        norm = np.float32(0)
        for j in range(size):
            direction[j] = residual[j]
            norm += residual[j] * residual[j]
        for _ in range(STEPS):
            if norm < 1e-12:
                break
            _apply(indptr, indices, held, gram, user, direction, applied)
            curve = np.float32(0)
            for j in range(size):
                curve += direction[j] * applied[j]
            step = norm / curve
            fresh = np.float32(0)
            for j in range(size):
                x[j] += step * direction[j]
                residual[j] -= step * applied[j]
                fresh += residual[j] * residual[j]
            ratio = fresh / norm
            norm = fresh
            for j in range(size):
                direction[j] = residual[j] + ratio * direction[j]
