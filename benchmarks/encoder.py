"""Training the encoder on a finished graph: each model, in one process and in several.

    python -m benchmarks.encoder GRAPH [--models residual_propagation,graph_sage] [--processes 1,2] [--steps 200]
                                 [--threads 2] [--seed 17]

GRAPH is the data folder of a graph artifact. Seconds are wall time of the whole training with its validations and
kept states, and with starting the processes where there are several. hits@20 and gain are of validation users'
held-out friendships over all users, at the best step; training stops early as in a night. All on the CPU:
benchmarks.encoder_devices sets a GPU beside it.
"""

import argparse
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from gnn.training_state import NAME
from infra.graph import Graph
from infra.settings import EncoderSettings, RunSettings, Settings
from jobs.encoder_process import Task, train_here
from jobs.encoder_processes import train_together

COLUMNS = ("model", "processes", "steps", "s", "ms a step", "best step", "hits@20", "gain", "state, MB")


def main() -> None:
    args = parse_arguments()
    print_machine(args)
    print(" | ".join(COLUMNS))
    print(" | ".join("---" for _ in COLUMNS))
    for model in args.models.split(","):
        for processes in map(int, args.processes.split(",")):
            print(" | ".join(measure(args, model, processes)), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--models", default="residual_propagation,graph_sage")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def print_machine(args: argparse.Namespace) -> None:
    graph = Graph.open(args.graph)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.processor() or platform.machine()}, {psutil.cpu_count()} cores")
    print(f"torch {version('torch')}, torch-geometric {version('torch-geometric')}")
    print(f"seed {args.seed}, {args.threads} threads")
    print(f"{graph.users:,} users, {graph.past.connections.entries // 2:,} friendships in the past view\n")


def measure(args: argparse.Namespace, model: str, processes: int) -> list[str]:
    encoder = EncoderSettings(model=model, processes=processes, max_steps=args.steps, device="cpu")
    run = RunSettings(seed=args.seed, threads=args.threads)
    with tempfile.TemporaryDirectory() as made:
        data, work = Path(made) / "data", Path(made) / "work"
        data.mkdir()
        task = Task(Settings(run=run, encoder=encoder), args.graph, data, work)
        start = time.perf_counter()
        result = (train_together if processes > 1 else train_here)(task, lambda line: None)
        seconds = time.perf_counter() - start
        state_bytes = (work / NAME).stat().st_size if (work / NAME).exists() else 0
    found = result.metrics
    best = next(point for point in found["curve"] if point["step"] == found["best_step"])
    return [
        model,
        str(processes),
        str(found["steps"]),
        f"{seconds:.1f}",
        f"{1000 * seconds / found['steps']:.0f}",
        str(found["best_step"]),
        f"{best.get('hits20', float('nan')):.4f}",
        f"{best.get('gain', float('nan')):.4f}",
        f"{state_bytes / 1e6:.1f}",
    ]


if __name__ == "__main__":
    main()
