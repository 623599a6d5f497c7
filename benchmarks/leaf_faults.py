"""What a model that ends its leaves does to the others: eight leaves, two a version, under part of their load."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from math import comb

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.leaf_models import columns_of, push
from benchmarks.leaf_process import CRASHER, BenchedLeaf
from infra.errors import PymkError
from infra.model_routes import ModelRef
from infra.settings import load
from infra.store import ObjectStore
from lookup_api.deadline import Deadline
from lookup_api.leaves.fleet import LeafFleet, open_leaf
from tests.suites.leaf_processes import LeafProcess, leaves

LEAVES, SHARD = 8, 2
SHARE = 0.3
"""Of the requests a second that the fleet answers at most."""
USED, ROWS, CALLERS = 60, 100, 16
EACH_LOADED = 6
"""Times that a version is asked before, so that both its leaves have it open."""
PAUSE_S = 0.2
"""Between requests for the model that ends its leaves."""
PATIENCE_S = 1.0


@dataclass
class Seen:
    """By version: milliseconds from when each request was due, and requests that failed, by why."""

    ms: dict[ModelRef, list[float]] = field(default_factory=dict)
    failed: Counter[ModelRef] = field(default_factory=Counter)


def beside_a_crasher(store: ObjectStore, versions: int, trees: int, seconds: float) -> None:
    models = [push(store, f"fleet{at}", USED, trees, number=at) for at in range(versions)]
    crasher = push(store, "crasher", USED, trees, kind=CRASHER)
    with leaves(store, LEAVES, "leaves.memory_mib=4096", kind=BenchedLeaf) as processes:
        fleet = fleet_of(store, processes)
        columns = columns_of(ROWS)
        for model in models:
            for _ in range(EACH_LOADED):
                fleet.score(model, columns, Deadline.after(60))
        most = at_most(fleet, models, columns, seconds / 4)
        before = under(SHARE * most, fleet, models, columns, seconds)
        stop, crashing = (
            threading.Event(),
            threading.Thread(target=lambda: keep_crashing(fleet, crasher, columns, stop)),
        )
        crashing.start()
        after = under(SHARE * most, fleet, models, columns, seconds)
        stop.set()
        crashing.join()
        gone = sum(one.process.poll() is not None for one in processes)
        print(f"\n{LEAVES} leaves, {SHARD} a version, {versions} versions of {ROWS} rows, at most {most:.0f} requests")
        print(f"a second: {SHARE:.0%} of it for {seconds:.0f} s, and as long beside a model that ended {gone} leaves")
        tell(fleet, models, crasher, before, after)
        fleet.close()


def fleet_of(store: ObjectStore, processes: Sequence[LeafProcess]) -> LeafFleet:
    addresses = ",".join(one.address for one in processes)
    flags = {"leaves.addresses": addresses, "leaves.shard_size": str(SHARD), "leaves.timeout_ms": "60000"}
    made = open_leaf(store.uri, load(None, flags, {})[0], CollectorRegistry())
    assert isinstance(made, LeafFleet)
    return made


def at_most(fleet: LeafFleet, models: Sequence[ModelRef], columns: dict[str, np.ndarray], seconds: float) -> float:
    """Requests a second of callers who ask again as soon as they are answered."""
    until, answered = time.perf_counter() + seconds, Counter[int]()

    def ask(caller: int) -> None:
        draw = np.random.default_rng(caller)
        while time.perf_counter() < until:
            fleet.score(models[int(draw.integers(len(models)))], columns, Deadline.after(60))
            answered[caller] += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(ask, range(CALLERS)))
    return answered.total() / seconds


def under(
    rate: float, fleet: LeafFleet, models: Sequence[ModelRef], columns: dict[str, np.ndarray], seconds: float
) -> Seen:
    """So many requests a second, sent when they are due whether or not others were answered."""
    seen, draw = Seen(), np.random.default_rng(1)
    seen.ms = {model: [] for model in models}
    start = time.perf_counter()
    dues = start + np.cumsum(draw.exponential(1 / rate, int(rate * seconds)))

    def ask(model: ModelRef, due: float) -> None:
        try:
            fleet.score(model, columns, Deadline.after(PATIENCE_S))
        except PymkError:
            seen.failed[model] += 1
        else:
            seen.ms[model].append((time.perf_counter() - due) * 1e3)

    with ThreadPoolExecutor(CALLERS) as pool:
        for due in dues:
            time.sleep(max(0.0, due - time.perf_counter()))
            pool.submit(ask, models[int(draw.integers(len(models)))], due)
    return seen


def keep_crashing(fleet: LeafFleet, model: ModelRef, columns: dict[str, np.ndarray], stop: threading.Event) -> None:
    while not stop.wait(PAUSE_S):
        with suppress(PymkError):
            fleet.score(model, columns, Deadline.after(PATIENCE_S))


def tell(fleet: LeafFleet, models: Sequence[ModelRef], crasher: ModelRef, before: Seen, after: Seen) -> None:
    """A line for the versions that have as many leaves in common with the crasher."""
    ends = set(fleet.shard(crasher))
    print(
        "| leaves in common | versions | by arithmetic | failed before | after | p50 ms before | after | p99 | after |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for common in range(SHARD, -1, -1):
        own = [model for model in models if len(ends & set(fleet.shard(model))) == common]
        share = comb(SHARD, common) * comb(LEAVES - SHARD, SHARD - common) / comb(LEAVES, SHARD)
        cells = [f"{common}", f"{len(own)}", f"{share * len(models):.1f}"]
        for seen in (before, after):
            failed, answered = sum(seen.failed[one] for one in own), sum(len(seen.ms[one]) for one in own)
            cells.append(f"{failed} of {failed + answered}")
        for percent in (50, 99):
            for seen in (before, after):
                ms = [one for model in own for one in seen.ms[model]]
                cells.append(f"{np.percentile(ms, percent):.2f}" if ms else "-")
        print(f"| {' | '.join(cells)} |", flush=True)
