"""Leaves: what trimming saves on the way to a leaf process, what lz4 costs, what scoring requests together gives.

    python -m benchmarks.leaves [--requests 400] [--rows 1000] [--features FILE] [--part trimming|together|loads]

Trimming: three models use 20, 60 and 60 of 200 columns, and every request asks all of them of one leaf process, in
turns: trimmed, all columns, and both with lz4. Columns are random, or those of a Parquet file of a features artifact,
repeated. Together: 16 callers of 16 rows each on one core, in the leaf's scorer and end to end, together and one by
one. Loads: a model that stays warm while others are asked in turns of a leaf that has no room for all of them. Models
are boosted trees, --trees of depth 6.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import xgboost as xgb
from prometheus_client import CollectorRegistry

from benchmarks.lookup import print_machine
from infra.model_golden import Golden, write_golden
from infra.model_routes import ModelRef
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec, Resources
from infra.models import Registry
from infra.serving_settings import LeafSettings
from infra.store import ObjectStore, open_store
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.leaves.batches import Batches
from lookup_api.leaves.leaf_metrics import HostMetrics, SenderMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.remote_leaf import RemoteLeaf
from tests.suites.leaf_processes import leaves

COLUMNS, USED = 200, (20, 60, 60)
NAMES = tuple(f"c{at}" for at in range(COLUMNS))
DEPTH, LEARN_ROWS = 6, 5000
CALLERS, CALL_ROWS = 16, 16
SEED, WARM_UP = 17, 20
PARTS = ("trimming", "together", "loads")
MODEL_BYTES, ROOM = 4 << 20, 50
"""What each model says it takes, and for how many a leaf has room where models are loaded all the time."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)


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
    parser.add_argument("--models", type=int, default=200, help="that are asked in turns of a leaf with room for 50")
    parser.add_argument("--part", choices=PARTS, action="append")
    args = parser.parse_args()
    print_machine()
    print(", ".join(f"{name} {version(name)}" for name in ("pyarrow", "xgboost-cpu", "numpy")), f"seed {SEED}")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder, create=True)
        models = [push(store, str(at), used, args.trees) for at, used in enumerate(USED)]
        parts = args.part or PARTS
        if "trimming" in parts:
            trimming(store, models, columns_of(args.rows, args.features), args.requests)
        if "together" in parts:
            scored_together(store, push(store, "rows", 60, args.trees), args.requests)
        if "loads" in parts:
            cold = [push(store, f"cold{at}", 60, args.trees) for at in range(args.models)]
            beside_loads(store, push(store, "warm", 60, args.trees), cold, columns_of(args.rows, None), args.requests)


def push(store: ObjectStore, name: str, used: int, trees: int) -> ModelRef:
    """Boosted trees on `used` of the columns, drawn by the model's name."""
    draw = np.random.default_rng([SEED, *name.encode()])
    names = [NAMES[at] for at in np.sort(draw.choice(COLUMNS, used, replace=False))]
    inputs = tuple(InputSpec(name=one) for one in names)
    spec = ModelSpec(
        name="bench", version=name, kind="xgboost", objective="befriend", inputs=inputs,
        resources=Resources(memory_bytes=MODEL_BYTES),
    )  # fmt: skip
    x = draw.standard_normal((LEARN_ROWS, used), np.float32)
    learnt = xgb.DMatrix(x, x[:, :5].sum(axis=1) + draw.standard_normal(LEARN_ROWS))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        (folder / WEIGHTS).mkdir(parents=True)
        booster = xgb.train({"max_depth": DEPTH, "nthread": 1, "tree_method": "hist"}, learnt, trees)
        booster.save_model(folder / WEIGHTS / "model.ubj")
        (folder / "model.toml").write_text(spec.to_toml())
        (folder / "card.md").write_text("# Bench\n")
        write_golden(folder, spec, Golden(dict(zip(names, x[:10].T, strict=True)), booster.predict(learnt)[:10]))
        Registry(store).push(folder, lambda folder, spec: {}, NOW, "bench")
    return ModelRef(name=spec.name, version=name)


def columns_of(rows: int, features: Path | None) -> dict[str, np.ndarray]:
    """200 columns, float32 [rows] each; of a features artifact every column again from other rows."""
    if features is None:
        values = np.random.default_rng(SEED).standard_normal((COLUMNS, rows), np.float32)
        return dict(zip(NAMES, values, strict=True))
    table = pq.read_table(features)
    real = [table[name].to_numpy().astype(np.float32) for name in table.schema.names[2:]]
    starts = np.random.default_rng(SEED).integers(0, len(real[0]) - rows, COLUMNS)
    return {name: real[at % len(real)][starts[at] :][:rows].copy() for at, name in enumerate(NAMES)}


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
            batches = Batches(1, 1000, HostMetrics(CollectorRegistry()))
            show(f"scorer, {name}", lambda at: batches.score(resident, inputs[at], soon()), requests)  # noqa: B023
    os.sched_setaffinity(0, cores)
    here.close()
    columns = [dict(zip(resident.spec.columns, one.T.copy(), strict=True)) for one in inputs]
    with leaves(store, 1) as (process,):
        psutil.Process(process.process.pid).cpu_affinity([max(cores)])
        leaf = remote(RemoteLeaf, process.address, False)
        show("end to end", lambda at: leaf.score(model, columns[at], soon()), requests)
        leaf.close()


def beside_loads(
    store: ObjectStore, warm: ModelRef, cold: list[ModelRef], columns: dict[str, np.ndarray], requests: int
) -> None:
    """The warm model asked in turns with nothing else to do, and while cold ones are loaded without a break."""
    print(f"\n{len(cold)} models in turns, room for {ROOM}; beside them one that is warm, {len(columns['c0'])} rows")
    print("| | p50 ms | p90 ms | p99 ms | loads a second | memory of the leaf, MiB |")
    print("|---|---|---|---|---|---|")
    with leaves(store, 1, f"leaves.memory_mib={ROOM * MODEL_BYTES >> 20}") as (process,):
        told = psutil.Process(process.process.pid)
        leaf, other = (remote(RemoteLeaf, process.address, False) for _ in range(2))
        stop, loads = threading.Event(), 0

        def load() -> None:
            nonlocal loads
            few = {name: column[:1] for name, column in columns.items()}
            while not stop.is_set():
                other.score(cold[loads % len(cold)], few, soon())
                loads += 1

        for name in ("alone", "beside loads", "alone, again"):
            stop.clear()
            loading = threading.Thread(target=load)
            if name == "beside loads":
                loading.start()
            times, start, before = [], time.perf_counter(), loads
            for _ in range(requests):
                began = time.perf_counter()
                leaf.score(warm, columns, soon())
                times.append((time.perf_counter() - began) * 1e3)
            spent = time.perf_counter() - start
            stop.set()
            if name == "beside loads":
                loading.join()
            p50, p90, p99 = np.percentile(times[WARM_UP:], (50, 90, 99))
            memory = told.memory_info().rss / 2**20
            print(f"| {name} | {p50:.2f} | {p90:.2f} | {p99:.2f} | {(loads - before) / spent:.0f} | {memory:.0f} |")


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


def local(store: ObjectStore) -> LocalLeaf:
    return LocalLeaf(store.uri, LeafSettings(), HostMetrics(CollectorRegistry()), breaker)


def remote(kind: type[RemoteLeaf], address: str, lz4: bool) -> RemoteLeaf:
    settings = LeafSettings(lz4=lz4, timeout_ms=60_000)
    return kind(address, settings, SenderMetrics(CollectorRegistry()), breaker(address))


def breaker(name: str) -> Breaker:
    return Breaker(name, 5, 1.0)


def soon() -> Deadline:
    return Deadline.after(60)


if __name__ == "__main__":
    main()
