"""Runs the whole pipeline and prints wall, CPU, peak memory and rows a second of every stage, beside a peer.

    python -m benchmarks.pipeline [--users 20000,100000] [--lake URI --as-of T] [--json FILE]

The peer is what a person would run instead of a pipeline: resource allocation by one sparse product (scipy), the best
100 of every user, on the same friendships in the same run. With several sizes the slope of wall time in friendships
is printed too.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import scipy.sparse as sp

from infra.artifacts import open_artifact
from infra.cost import CostMeter
from infra.graph import Graph
from infra.store import open_store

PACKAGES = ("pyspark", "torch", "torch-geometric", "faiss-cpu", "scann", "xgboost-cpu", "numpy", "numba", "pyarrow")
TOP = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="20000,100000", help="sizes of generated networks, by comma")
    parser.add_argument("--lake", help="measure this lake instead")
    parser.add_argument("--as-of", default="2026-01-01")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    print_machine()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        if args.lake:
            found.append(measure(args.lake, Path(folder) / "store", args.as_of))
        for users in [] if args.lake else [int(u) for u in args.users.split(",")]:
            lake = Path(folder) / f"lake-{users}"
            pymk("sample", f"--users={users}", f"--lake={lake}", f"--end={args.as_of}")
            found.append(measure(str(lake), Path(folder) / f"store-{users}", args.as_of))
    print_slopes(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


def print_machine() -> None:
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES))
    print(f"{datetime.now(UTC):%Y-%m-%d}, seed 17\n", flush=True)


def measure(lake: str, store: Path, as_of: str) -> dict[str, Any]:
    """Runs the pipeline once in a process of its own, then the peer on the graph it built."""
    with CostMeter() as whole:
        made = pymk("run", f"--lake={lake}", f"--store={store}", f"--as-of={as_of}")
    entry = made["stages"]["build_graph"]
    graph = Graph.open(open_artifact(open_store(str(store)), "graph", entry["artifact_id"]).path)
    friendships = graph.now.connections.entries // 2
    print(f"\n{graph.users:,} users, {friendships:,} friendships")
    print(f"{'stage':<16}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'rows':>14}{'rows/s':>12}")
    for name, stage in made["stages"].items():
        print_row(name, stage["cost"], stage["rows"])
    print_row("all", whole.as_dict(), graph.users)
    with CostMeter() as peer:
        resource_allocation(graph)
    print_row("peer: scipy RA", peer.as_dict(), graph.users)
    return {
        "users": graph.users,
        "friendships": friendships,
        "stages": {name: stage["cost"] | {"rows": stage["rows"]} for name, stage in made["stages"].items()},
        "all": whole.as_dict(),
        "peer": peer.as_dict(),
    }


def print_row(name: str, cost: dict[str, float], rows: int) -> None:
    print(
        f"{name:<16}{cost['wall_s']:>9.1f}{cost['cpu_s']:>9.1f}{cost['peak_memory_bytes'] / 2**20:>10,.0f}"
        f"{rows:>14,}{rows / max(cost['wall_s'], 1e-3):>12,.0f}",
        flush=True,
    )


def resource_allocation(graph: Graph) -> None:
    """The best TOP by resource allocation (Zhou et al. 2009) of every user, 1,024 users at a time."""
    csr = graph.now.connections
    n = graph.users
    friends = sp.csr_matrix((np.ones(csr.entries, np.float32), csr.indices, csr.indptr), (n, n))
    weighted = (sp.diags((1 / np.maximum(csr.degrees(), 1)).astype(np.float32)) @ friends).tocsr()
    for start in range(0, n, 1024):
        block = friends[start : start + 1024]
        scores = (block @ weighted).toarray()
        scores[np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)), block.indices] = 0
        np.argpartition(-scores, min(TOP, n - 1), axis=1)[:, :TOP]


def print_slopes(found: list[dict[str, Any]]) -> None:
    """Exponent of wall time in friendships between the smallest and the largest size: 1 is linear."""
    if len(found) < 2:
        return
    small, large = found[0], found[-1]
    growth = np.log(large["friendships"] / small["friendships"])
    print("\nslope of wall time in friendships (1 = linear)")
    for name in (*small["stages"], "all", "peer"):
        costs = [(f["stages"].get(name) or f[name])["wall_s"] for f in (small, large)]
        print(f"{name:<16}{np.log(costs[1] / costs[0]) / growth:>9.2f}")


def pymk(*arguments: str) -> dict[str, Any]:
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "jobs.cli", *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"pymk {' '.join(arguments)} failed after {time.monotonic() - start:.0f} s: {done.stdout.decode()}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
