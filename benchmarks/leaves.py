"""Leaves: what trimming saves on the way to a leaf process, what lz4 costs, what scoring requests together gives, what
loads of other models cost a warm one, and what a model that ends its leaves does to the others.

    python -m benchmarks.leaves [--requests 400] [--rows 1000] [--features FILE] [--registered 1000] [--live 200]
        [--versions 280] [--seconds 15] [--rounds 3] [--folder FOLDER]
        [--part trimming|together|loads|faults]

Trimming: three models use 20, 60 and 60 of 200 columns, and every request asks all of them of one leaf process, in
turns: trimmed, all columns, and both with lz4. Columns are random, or those of a Parquet file of a features artifact,
repeated. Together: 16 callers of 16 rows each on one core, in the leaf's scorer and end to end, together and one by
one. Loads: every registered version is asked once, then one that stays warm, of a leaf that has room for 50: alone,
while another process asks for the live ones in turns, and while one that has nothing to do with it keeps a core busy.
Faults: eight leaves, two a version, under 30 % of the requests that they answer at most. Models are boosted trees,
--trees of depth 6.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
from prometheus_client import CollectorRegistry

from benchmarks.leaf_faults import beside_a_crasher
from benchmarks.leaf_loads import beside_loads
from benchmarks.leaf_models import COLUMNS, SEED, columns_of, local, push, remote, soon
from benchmarks.lookup import print_machine
from infra.model_routes import ModelRef
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline
from lookup_api.leaves.batches import Batches
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.remote_leaf import RemoteLeaf
from tests.suites.leaf_processes import leaves

USED = (20, 60, 60)
CALLERS, CALL_ROWS = 16, 16
WARM_UP = 20
PARTS = ("trimming", "together", "loads", "faults")


class Untrimmed(RemoteLeaf):
    """Sends every column, as where a model's list is missing."""

    def _list(self, model: ModelRef, deadline: Deadline) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--features", type=Path, help="Parquet file of a features artifact; random columns without")
    parser.add_argument("--registered", type=int, default=1000)
    parser.add_argument("--live", type=int, default=200, help="of them, asked in turns of a leaf with room for 50")
    parser.add_argument("--versions", type=int, default=280, help="on eight leaves")
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement of loads and of faults")
    parser.add_argument("--rounds", type=int, default=3, help="of loads")
    parser.add_argument("--folder", type=Path, help="keeps the models for another run")
    parser.add_argument("--part", choices=PARTS, action="append")
    args = parser.parse_args()
    print_machine()
    print(", ".join(f"{name} {version(name)}" for name in ("pyarrow", "xgboost-cpu", "numpy")), f"seed {SEED}")
    with nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        store = open_store(str(folder), create=True)
        parts = args.part or PARTS
        if "trimming" in parts:
            models = [push(store, f"used{at}", used, args.trees, number=at) for at, used in enumerate(USED)]
            trimming(store, models, columns_of(args.rows, args.features), args.requests)
        if "together" in parts:
            scored_together(store, push(store, "rows", 60, args.trees), args.requests)
        if "loads" in parts:
            beside_loads(store, args.registered, args.live, args.trees, args.seconds, args.rounds)
        if "faults" in parts:
            beside_a_crasher(store, args.versions, args.trees, args.seconds)


def trimming(store: ObjectStore, models: list[ModelRef], columns: dict[str, np.ndarray], requests: int) -> None:
    here = local(store)
    expected = [here.score(model, columns, soon()) for model in models]
    rows = len(expected[0])
    with leaves(store, 1) as (process,):
        told = psutil.Process(process.process.pid)
        ways = {
            f"{what}{', lz4' if lz4 else ''}": remote(kind, process.address, lz4)
            for kind, what in ((RemoteLeaf, "trimmed"), (Untrimmed, "all columns"))
            for lz4 in (False, True)
        }
        for leaf in ways.values():
            for _ in range(WARM_UP):
                found = [leaf.score(model, columns, soon()) for model in models]
            assert all((a == b).all() for a, b in zip(found, expected, strict=True)), "scores differ"
            leaf._counts.told.clear()
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for _ in range(requests):
            for name, leaf in ways.items():
                start, cpu, cpu_there = time.perf_counter(), time.process_time(), sum(told.cpu_times()[:2])
                found = [leaf.score(model, columns, soon()) for model in models]
                spent = time.perf_counter() - start, time.process_time() - cpu, sum(told.cpu_times()[:2]) - cpu_there
                times[name].append(spent)
                assert all((a == b).all() for a, b in zip(found, expected, strict=True)), "scores differ"
        print(f"\n{rows} rows, {COLUMNS} columns, models of {USED}; scores are those of one process to the bit")
        print("| | bytes a request | of the arithmetic | p50 ms | p90 ms | p99 ms | CPU ms here | in the leaf |")
        print("|---|---|---|---|---|---|---|---|")
        for name, leaf in ways.items():
            sent = leaf._counts.told["sent"] / requests
            wall, cpu, there = np.array(times[name]).T * 1e3
            p50, p90, p99 = np.percentile(wall, (50, 90, 99))
            share = sent / (4 * rows * sum(USED))
            print(
                f"| {name} | {sent:,.0f} | {share:.3f} | {p50:.2f} | {p90:.2f} | {p99:.2f} "
                f"| {cpu.mean():.2f} | {there.mean():.2f} |"
            )
            leaf.close()
    here.close()


def scored_together(store: ObjectStore, model: ModelRef, requests: int) -> None:
    """One core for all; calls a second and how long one takes."""
    here = local(store)
    resident = here.resident(model, soon())
    draw = np.random.default_rng(SEED)
    inputs = [draw.standard_normal((CALL_ROWS, resident.spec.width), np.float32) for _ in range(CALLERS)]
    alone = resident.spec.model_copy(update={"unit": "list"})  # lists are scored one by one
    print(f"\n{CALLERS} callers of {CALL_ROWS} rows, {resident.spec.width} columns, one core")
    print("| | calls a second | p50 ms | p99 ms |")
    print("|---|---|---|---|")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    for _ in range(2):
        for name, spec in (("one by one", alone), ("together", resident.spec)):
            resident.spec = spec
            batches = Batches(1, 1000, 60.0, HostMetrics(CollectorRegistry()))
            show(f"scorer, {name}", lambda at: batches.score(resident, inputs[at], soon()), requests)  # noqa: B023
    os.sched_setaffinity(0, cores)
    here.close()
    columns = [dict(zip(resident.spec.columns, one.T.copy(), strict=True)) for one in inputs]
    with leaves(store, 1) as (process,):
        psutil.Process(process.process.pid).cpu_affinity([max(cores)])
        leaf = remote(RemoteLeaf, process.address, False)
        show("end to end", lambda at: leaf.score(model, columns[at], soon()), requests)
        leaf.close()


def show(name: str, call: Callable[[int], object], requests: int) -> None:
    """A line of the table: `requests` calls of each caller, one after the other."""
    times: list[list[float]] = [[] for _ in range(CALLERS)]
    ready = threading.Barrier(CALLERS + 1)

    def ask(at: int) -> None:
        call(at)
        ready.wait()
        for _ in range(requests):
            start = time.perf_counter()
            call(at)
            times[at].append(time.perf_counter() - start)

    asking = [threading.Thread(target=ask, args=(at,)) for at in range(CALLERS)]
    for thread in asking:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in asking:
        thread.join()
    spent = time.perf_counter() - start
    p50, p99 = np.percentile(np.array(times) * 1e3, (50, 99))
    print(f"| {name} | {CALLERS * requests / spent:,.0f} | {p50:.2f} | {p99:.2f} |", flush=True)


if __name__ == "__main__":
    main()
