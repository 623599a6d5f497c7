"""The encoder on a GPU beside the CPU: does it compute the same, and how much faster is it.

    python -m benchmarks.encoder_devices [GRAPH] [--users 1000000] [--steps 600] [--threads 8] [--seed 17]
                                         [--model residual_propagation] [--runs cpu:float32,cuda:float32,…]

GRAPH is the data folder of a graph artifact; without it a network of --users is generated, 20 friendships a user, half
of them within communities of 200. The first table trains from one seed in every run named. Differences are of the loss
of a step, from the first run; ms a step is the median with sampling and without validation; gain and hits@20 are of
validation users' held-out friendships at the best step. The second table embeds everyone with the first run's encoder
on every device, once to warm up and once measured, beside what the first device gives.
"""

import argparse
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from gnn.batches import FriendshipLoader, subgraph
from gnn.checkpoint import hash_tensors, save_encoder
from gnn.embed import embed
from gnn.inputs import Inputs, Vocabulary, feature_weights
from gnn.runtime import device_of, prepare
from gnn.sampler import CsrSampler
from gnn.targets import fanouts_of, friendships_to_learn
from gnn.train import Trained, train
from gnn.trainer import LONELY_SHARE
from infra.graph import LEARN, NO_DAY, Csr, Graph, View
from infra.settings import EncoderSettings

RUNS = "cpu:float32,cuda:float32,cuda:float32,cuda:bfloat16"
FRIENDSHIPS_A_USER, COMMUNITY, CITIES, CLUBS = 20, 200, 500, 5000
SAMPLED_BATCHES = 40
COLUMNS = (
    "run", "s", "ms a step", "speed-up", "largest loss difference", "mean", "best step", "gain", "hits@20", "",
)  # fmt: skip


def main() -> None:
    args = parse_arguments()
    graph = Graph.open(args.graph) if args.graph else generated(args.users, args.seed)
    print_machine(args, graph)
    print(f"sampling and batching alone: {sampling_ms(graph, args):.1f} ms a step, on the CPU in every run\n")
    encoder = print_training(graph, args)
    print_embedding(graph, encoder, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path, nargs="?")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--model", default="residual_propagation")
    parser.add_argument("--runs", default=RUNS, help="device:precision, the first to compare the others with")
    return parser.parse_args()


def print_machine(args: argparse.Namespace, graph: Graph) -> None:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {gpu}, {platform.processor() or platform.machine()}, ", end="")
    print(f"{len(os.sched_getaffinity(0))} of {psutil.cpu_count()} cores, {args.threads} threads")
    print(f"torch {torch.__version__}, torch-geometric {version('torch-geometric')}, seed {args.seed}, {args.model}")
    friendships = graph.past.connections.entries // 2
    print(f"{graph.users:,} users, {friendships:,} friendships in the past view\n", flush=True)


def settings_of(args: argparse.Namespace, run: str) -> EncoderSettings:
    device, precision = run.split(":")
    return EncoderSettings.model_validate(
        {"model": args.model, "max_steps": args.steps, "device": device, "precision": precision}
    )


def sampling_ms(graph: Graph, args: argparse.Namespace) -> float:
    """Median time to sample a mini-batch and to lay it out, without a model."""
    settings = settings_of(args, "cpu:float32")
    vocabulary = Vocabulary.of(graph)
    inputs = Inputs.of(vocabulary, feature_weights(vocabulary, graph, graph.past), graph, graph.past)
    pairs = friendships_to_learn(inputs.connections, SAMPLED_BATCHES * settings.batch_size, args.seed)
    sampler = CsrSampler(inputs.connections, fanouts_of(settings, graph.users), True, LONELY_SHARE)
    prepare(args.threads, args.seed)
    times = [time.perf_counter()]
    for data in FriendshipLoader(sampler, pairs, settings.batch_size):
        subgraph(inputs, data, torch.device("cpu"))
        times.append(time.perf_counter())
    return 1000 * float(np.median(np.diff(times)))


def print_training(graph: Graph, args: argparse.Namespace) -> Trained:
    """One line a run; returns what the first run trained."""
    print_row(*COLUMNS)
    print_row(*["---"] * len(COLUMNS))
    first: tuple[Trained, Any, float] | None = None
    hashes: set[str] = set()
    for run in args.runs.split(","):
        result, losses, seconds, step_ms = trained(graph, args, run)
        first = first or (result, losses, step_ms)
        apart = np.abs(losses[: len(first[1])] - first[1][: len(losses)])
        weights = hash_tensors({k: v.cpu() for k, v in result.encoder.state_dict().items()})
        best = max(result.metrics["curve"], key=lambda point: point.get("gain", 0.0))
        print_row(
            run, f"{seconds:.1f}", f"{step_ms:.1f}", f"{first[2] / step_ms:.1f}", f"{apart.max():.1e}",
            f"{apart.mean():.1e}", result.metrics["best_step"], f"{best.get('gain', np.nan):.4f}",
            f"{best.get('hits20', np.nan):.4f}", "same weights again" if weights in hashes else "",
        )  # fmt: skip
        hashes.add(weights)
    assert first
    return first[0]


def trained(graph: Graph, args: argparse.Namespace, run: str) -> tuple[Trained, Any, float, float]:
    """The result, the loss of every step, seconds, and the median milliseconds from step to step."""
    losses, times = [], []

    def watch(step: int, loss: float) -> None:
        losses.append(loss)
        times.append(time.perf_counter())

    prepare(args.threads, args.seed)
    start = time.perf_counter()
    result = train(graph, settings_of(args, run), args.seed, lambda line: None, watch=watch)
    return result, np.array(losses), time.perf_counter() - start, 1000 * float(np.median(np.diff(times)))


def print_embedding(graph: Graph, encoder: Trained, args: argparse.Namespace) -> None:
    devices = list(dict.fromkeys(run.split(":")[0] for run in args.runs.split(",")))
    print()
    print_row("embedding on", "s", "users/s", "speed-up", "largest difference", "least cosine")
    print_row(*["---"] * 6)
    first: tuple[Any, float] | None = None
    with tempfile.TemporaryDirectory() as made:
        save_encoder(Path(made), args.model, encoder.encoder, encoder.encoder.shape)
        for device in devices:
            embed(Path(made), graph, "past", device_of(device).type)
            start = time.perf_counter()
            embedded = embed(Path(made), graph, "past", device_of(device).type)
            seconds = time.perf_counter() - start
            first = first or (embedded, seconds)
            apart, cosine = np.abs(embedded - first[0]).max(), (embedded * first[0]).sum(1).min()
            print_row(
                device, f"{seconds:.2f}", f"{graph.users / seconds:,.0f}", f"{first[1] / seconds:.1f}",
                f"{apart:.1e}", f"1 - {1 - cosine:.1e}",
            )  # fmt: skip


def generated(users: int, seed: int) -> Graph:
    """A network without held-out friendships: communities, a city and two clubs a user that follow them in part."""
    draw = np.random.default_rng(seed)
    wanted = users * FRIENDSHIPS_A_USER // 2
    one = draw.integers(0, users, 2 * wanted)
    near = np.minimum(one[:wanted] // COMMUNITY * COMMUNITY + draw.integers(0, COMMUNITY, wanted), users - 1)
    known = (users * draw.random(wanted) ** 2).astype(np.int64)  # some are known by many
    other = np.concatenate([near, known])
    keys = np.unique(np.minimum(one, other) * users + np.maximum(one, other))
    pairs = np.stack([keys // users, keys % users])
    pairs = pairs[:, pairs[0] != pairs[1]]
    city = np.where(draw.random(users) < 0.8, np.arange(users) // COMMUNITY % CITIES, draw.integers(0, CITIES, users))
    clubs = np.stack([np.arange(users) // COMMUNITY % CLUBS, draw.integers(0, CLUBS, users)], axis=1)
    view = View(_symmetric(users, pairs), _clubs(users, clubs), Csr.empty(users, np.float32))
    return Graph(
        ids=np.arange(users, dtype=np.int64), split=np.full(users, LEARN, np.uint8),
        joined_day=np.full(users, NO_DAY, np.int32), attributes=("city",), cardinalities=(CITIES,),
        attribute_codes=city[None].astype(np.int32), kinds=("club",), entity_kind=np.zeros(CLUBS, np.int16),
        held_out=np.empty((0, 2), np.int32), held_out_day=np.empty(0, np.int32), excluded=Csr.empty(users),
        past=view, now=view, hold_out="random", as_of_day=20_000,
    )  # fmt: skip


def _symmetric(users: int, pairs: Any) -> Csr:
    keys = np.sort(np.concatenate([pairs[0] * users + pairs[1], pairs[1] * users + pairs[0]]))
    indptr = np.searchsorted(keys, np.arange(users + 1) * users)
    return Csr(indptr, (keys % users).astype(np.int32), np.full(len(keys), NO_DAY, np.int32))


def _clubs(users: int, clubs: Any) -> Csr:
    clubs.sort(axis=1)
    kept = np.stack([np.ones(users, bool), clubs[:, 0] != clubs[:, 1]], axis=1)
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return Csr(indptr, clubs[kept].astype(np.int32), np.ones(int(indptr[-1]), np.float32))


def print_row(*cells: object) -> None:
    print(" | ".join(map(str, cells)), flush=True)


if __name__ == "__main__":
    main()
