"""Time of every blend for one user and for many, with slopes, beside the published algorithms in plain numpy.

    python -m benchmarks.blend [--candidates 500] [--dimensions 64] [--picks 50] [--window 10] [--users 64]
                               [--repeats 7] [--seed 17]

The peers are Chen's fast-map-dpp with and without a window, and rsdiv's SSD, which has no window. They are given one
user and no mask; a kernel they need is built in their time. Times are CPU time of one thread, the best of the repeats,
which other work on the machine disturbs least. A slope is the exponent of time in a size, over that size once, twice
and four times, for one user. "Same" is the share of users for whom a peer's picks are the blend's.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reads these when it is loaded

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.blend_peers import fast_map_dpp, ssd_of_rsdiv
from gnn.blend.dpp import RIDGE, GreedyDPP
from gnn.blend.mmr import MaximalMarginalRelevance
from gnn.blend.protocol import Blend
from gnn.blend.spacing import SoftSpacing
from gnn.blend.ssd import SlidingSpectrum
from gnn.blend.utility import WeightedUtility

GAMMA, THETA, GROUPS = 0.5, 0.7, 4
COLUMNS = ("", "ms, one user", "slopes N, D, K", "ms a user, batch", "loop / batch", "same")
Peer = Callable[[np.ndarray, np.ndarray, int], list[int]]


@dataclass(frozen=True)
class Size:
    candidates: int
    dimensions: int
    picks: int
    users: int


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    size = Size(args.candidates, args.dimensions, args.picks, args.users)
    print_machine(args)
    print(" | ".join(COLUMNS))
    print(" | ".join("---" for _ in COLUMNS))
    for name, blend, peer in contenders(args.window):
        measure(name, blend, size, args)
        if peer:
            measure_peer(peer, blend, size, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--picks", type=int, default=50)
    parser.add_argument("--window", type=int, default=10)
    parser.add_argument("--users", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def contenders(window: int) -> list[tuple[str, Blend, tuple[str, Peer] | None]]:
    """Name, blend, and a peer that should pick the same."""
    quality = THETA / (2 * (1 - THETA))

    def kernel(relevance: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scaled = rows * np.exp(quality * relevance)[:, None]
        return scaled @ scaled.T + RIDGE * np.eye(len(rows))

    return [
        ("SSD", SlidingSpectrum(GAMMA, None), ("rsdiv, numpy", lambda r, e, k: ssd_of_rsdiv(r, e, k, GAMMA))),
        (f"SSD, window {window}", SlidingSpectrum(GAMMA, window), None),
        ("DPP", GreedyDPP(THETA), ("fast-map-dpp, numpy", lambda r, e, k: fast_map_dpp(kernel(r, e), k))),
        (
            f"DPP, window {window}",
            GreedyDPP(THETA, window),
            (f"fast-map-dpp, window {window}, numpy", lambda r, e, k: fast_map_dpp(kernel(r, e), k, window)),
        ),
        ("MMR", MaximalMarginalRelevance(), None),
        (f"soft spacing, window {window}", SoftSpacing(0.1, window), None),
        ("weighted utility", WeightedUtility([1.0, 0.5, 0.25, 0.25, 0.25]), None),
    ]


def measure(name: str, blend: Blend, size: Size, args: argparse.Namespace) -> None:
    relevance, traits, valid = users_of(blend, size, args.seed)
    each = [(relevance[i : i + 1], traits[i : i + 1], valid[i : i + 1]) for i in range(size.users)]
    loop, batch = best_s(
        [
            lambda: [blend(*one, size.picks) for one in each],
            lambda: blend(relevance, traits, valid, size.picks),
        ],
        args.repeats,
    )

    def alone(at: Size) -> Callable[[], Any]:
        inputs = users_of(blend, replace(at, users=1), args.seed)
        return lambda: blend(*inputs, at.picks)

    sloped = slopes(alone, size, args.repeats, dimensions=not isinstance(blend, SoftSpacing))
    print_line(name, alone(size), sloped, f"{batch / size.users * 1e3:.2f}", f"{loop / batch:.1f}", "", args)


def measure_peer(named: tuple[str, Peer], blend: Blend, size: Size, args: argparse.Namespace) -> None:
    name, peer = named

    def arrays(at: Size) -> tuple[np.ndarray, np.ndarray]:
        relevance, traits, _ = users_of(blend, at, args.seed)
        return relevance.double().numpy(), traits.double().numpy()

    def alone(at: Size) -> Callable[[], Any]:
        relevance, rows = arrays(replace(at, users=1))
        return lambda: peer(relevance[0], rows[0], at.picks)

    picks = blend(*users_of(blend, size, args.seed), size.picks).tolist()
    pairs = zip(picks, *arrays(size), strict=True)
    same = sum(peer(relevance, rows, size.picks) == ours for ours, relevance, rows in pairs)
    print_line(name, alone(size), slopes(alone, size, args.repeats), "", "", f"{same} of {size.users}", args)


def users_of(blend: Blend, size: Size, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Uniform relevance; unit embeddings, or groups of 20, or further objectives; all valid."""
    draw = torch.Generator().manual_seed(seed)
    shape = (size.users, size.candidates)
    relevance, valid = torch.rand(shape, generator=draw), torch.ones(shape, dtype=torch.bool)
    if isinstance(blend, SoftSpacing):
        return relevance, torch.randint(-1, 20, (*shape, GROUPS), generator=draw), valid
    if isinstance(blend, WeightedUtility):
        return relevance, torch.rand((*shape, len(blend.weights) - 1), generator=draw), valid
    rows = torch.randn((*shape, size.dimensions), generator=draw)
    return relevance, torch.nn.functional.normalize(rows, dim=2), valid


def slopes(alone: Callable[[Size], Callable[[], Any]], size: Size, repeats: int, dimensions: bool = True) -> str:
    return ", ".join(
        f"{slope(alone, size, name, repeats):.2f}" if dimensions or name != "dimensions" else "-"
        for name in ("candidates", "dimensions", "picks")
    )


def slope(alone: Callable[[Size], Callable[[], Any]], size: Size, name: str, repeats: int) -> float:
    sizes = [getattr(size, name) * factor for factor in (1, 2, 4)]
    times = best_s([alone(replace(size, **{name: n})) for n in sizes], repeats)
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def best_s(works: list[Callable[[], Any]], repeats: int) -> list[float]:
    """CPU seconds of each, the best of interleaved repeats after one that does not count."""
    best = [math.inf] * len(works)
    for repeat in range(repeats + 1):
        for i, work in enumerate(works):
            start = time.process_time()
            work()
            best[i] = min(best[i], time.process_time() - start) if repeat else math.inf
    return best


def print_machine(args: argparse.Namespace) -> None:
    memory = psutil.virtual_memory().total / 2**30
    print(
        f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, one thread used"
    )
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "numpy"))
    print(f"Python {platform.python_version()}, {versions}; {datetime.now(UTC):%Y-%m-%d}, seed {args.seed}")
    print(f"{args.candidates} candidates x {args.dimensions} dimensions, {args.picks} picks; batch of {args.users}\n")


def print_line(name: str, work: Callable[[], Any], sloped: str, *others: Any) -> None:
    *texts, args = others
    (alone,) = best_s([work], 3 * args.repeats)
    print(" | ".join([name, f"{alone * 1e3:.2f}", sloped, *texts]), flush=True)


if __name__ == "__main__":
    main()
