"""What loads of cold models do to a warm one, whether every model answers, and whether the leaf grows.

python -m benchmarks.leaf_loads ADDRESS LIVE     asks for the live models in turns until it is ended
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks.leaf_models import (
    LEARNT,
    MODEL_BYTES,
    columns_of,
    local,
    push,
    remote,
    soon,
)  # fmt: skip
from infra.model_routes import ModelRef
from infra.store import ObjectStore
from lookup_api.leaves.remote_leaf import RemoteLeaf
from lookup_api.release_watch import FOLLOWER_NICENESS
from tests.suites.leaf_processes import LeafProcess, leaves

ROOM = 50
"""Models that a leaf has room for."""
USED = 60
WARM_ROWS = 1000
WARM_UP = 20
FEW = 16
BUSY = ["nice", "-n", str(FOLLOWER_NICENESS), sys.executable, "-c", "while True: pass"]


def beside_loads(store: ObjectStore, registered: int, live: int, trees: int, seconds: float, rounds: int) -> None:
    """The warm model asked with nothing else to do, while another process has cold ones loaded without a break, and
    while one that knows nothing of models keeps a core busy at the low priority of loads, in turns."""
    start = time.perf_counter()
    for at in range(registered):
        push(store, f"cold{at}", USED, trees, number=at)
    warm = push(store, "warm", USED, trees)
    print(f"\n{registered + 1} versions registered in {time.perf_counter() - start:.0f} s; {live} of them live,")
    print(f"room for {ROOM} in the leaf; a warm one of {WARM_ROWS} rows, asked by one caller")
    with leaves(store, 1, f"leaves.memory_mib={ROOM * MODEL_BYTES >> 20}") as (process,):
        every_one_answers(store, process, registered, trees)
        print("| | requests | p50 ms | p90 ms | p99 ms | loads a second | memory of the leaf, MiB | allocated, MiB |")
        print("|---|---|---|---|---|---|---|---|")
        columns, leaf = columns_of(WARM_ROWS), remote(RemoteLeaf, process.address)
        grown = []
        beside = {"alone": [], "beside loads": asking_for(process.address, live), "beside a busy core": BUSY}
        times: dict[str, list[float]] = {name: [] for name in beside}
        for _ in range(rounds):
            for name, command in beside.items():
                before, began = loads(process), time.perf_counter()
                with running(command):
                    mine = asked(leaf, warm, columns, seconds, process, before if name == "beside loads" else None)
                times[name] += mine
                rate = (loads(process) - before) / (time.perf_counter() - began)
                grown.append((loads(process), *memory(process)))
                show(name, mine, rate, *grown[-1][1:])
        p99 = {name: np.percentile(taken, 99) for name, taken in times.items()}
        for name in list(p99)[1:]:
            print(f"p99 {name} is {p99[name] / p99['alone']:.2f} times that alone, of all rounds together")
        later = np.array(grown[1:])
        if len(later) > 1:
            for column, what in ((1, "memory"), (2, "allocated")):
                slope = np.polyfit(later[:, 0], later[:, column], 1)[0] * 1000
                print(f"{what} after {later[0, 0]:,.0f} loads {later[0, column]:.1f} MiB, after {later[-1, 0]:,.0f} "
                      f"{later[-1, column]:.1f} MiB: {slope:+.3f} MiB for every 1,000 loads")  # fmt: skip


def every_one_answers(store: ObjectStore, process: LeafProcess, registered: int, trees: int) -> None:
    """Each registered version once; scores are those that its trees give in this process."""
    columns, leaf, here = columns_of(FEW), remote(RemoteLeaf, process.address), local(store)
    expected = [here.score(version_of(at), columns, soon()) for at in range(LEARNT)]
    here.close()
    start = time.perf_counter()
    wrong = sum(
        not np.array_equal(leaf.score(version_of(at), columns, soon()), expected[at % LEARNT])
        for at in range(registered)
    )
    spent = time.perf_counter() - start
    print(f"{registered - wrong} of {registered} answer as their trees do, each asked once, in {spent:.0f} s")
    leaf.close()


def asked(
    leaf: RemoteLeaf,
    model: ModelRef,
    columns: dict[str, np.ndarray],
    seconds: float,
    process: LeafProcess,
    loads_before: float | None,
) -> list[float]:
    """Milliseconds of each request, one after the other. loads_before: counted when loads began, of which some must
    have been made before times are taken."""
    while loads_before is not None and loads(process) <= loads_before:
        time.sleep(0.05)
    for _ in range(WARM_UP):
        leaf.score(model, columns, soon())
    times, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        leaf.score(model, columns, soon())
        times.append((time.perf_counter() - began) * 1e3)
    return times


def show(name: str, times: Sequence[float], rate: float, resident: float, allocated: float) -> None:
    p50, p90, p99 = np.percentile(times, (50, 90, 99))
    print(f"| {name} | {len(times):,} | {p50:.2f} | {p90:.2f} | {p99:.2f} | {rate:.0f} | {resident:.1f} "
          f"| {allocated:.1f} |", flush=True)  # fmt: skip


def loads(process: LeafProcess) -> float:
    """Models that the leaf opened so far."""
    return process.metrics().get('pymk_leaf_loads_total{outcome="loaded"}', 0.0)


def memory(process: LeafProcess) -> tuple[float, float]:
    """MiB of the leaf: resident, and allocated by malloc, Arrow and Python, whose blocks are taken as 64 bytes each.

    NaN where malloc is none that tells.
    """
    found = process.metrics()
    held = [found.get(f'pymk_leaf_allocated_bytes{{by="{one}"}}', np.nan) for one in ("malloc", "arrow")]
    allocated = sum(held) + 64 * found["pymk_leaf_python_blocks"]
    return found["process_resident_memory_bytes"] / 2**20, allocated / 2**20


def version_of(number: int) -> ModelRef:
    return ModelRef(name="bench", version=f"cold{number}")


def asking_for(address: str, live: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.leaf_loads", address, str(live)]


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """Beside it, the command if there is one."""
    process = subprocess.Popen(command) if command else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main() -> None:
    address, live = sys.argv[1], int(sys.argv[2])
    columns, leaf = columns_of(1), remote(RemoteLeaf, address)
    while True:
        for at in range(live):
            leaf.score(version_of(at), columns, soon())


if __name__ == "__main__":
    main()
