"""Pairs a second, and recall@20, of every kind of ranker, beside LightGBM's own trees and prediction.

    python -m benchmarks.ranker [--store STORE] [--batches 300 32768] [--repeats 7] [--threads 2] [--seed 17]

Each ranker is learnt as the pipeline does, saved, opened as it is served, and scores with one thread; training may use
more. Lists are the past view of a finished run: learnt on the users to learn from, recall@20 on the validation users'
lists. Without --store they are made up. LightGBM learns LambdaRank on the same lists and features, with as many trees
as XGBoost was given at most, stopped early. Times are CPU time, the best of the repeats. A batch of 300 is one live
request, 32,768 what the nightly run scores at a time.
"""

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import lightgbm as lgb
import numpy as np
import psutil

from infra.graph import LEARN, VALIDATE, Graph
from infra.settings import RankerSettings, RunSettings, Settings
from jobs.train_ranker import LEARNERS, read_lists
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import Ranker, linear
from lookup_api.ranking.ranker_lists import Float32, Lists, ndcg, recall
from lookup_api.ranking.ranker_prior import default_prior

VARIANTS = {
    "XGBoost above the prior": RankerSettings(kind="trees"),
    "mlp float32": RankerSettings(kind="mlp"),
    "mlp int8": RankerSettings(kind="mlp", precision="int8"),
    "ensemble": RankerSettings(kind="ensemble"),
}
PAIRS_TIMED = 65_536
"""Pairs scored in one repeat."""
Score = Callable[[Float32], Float32]


@dataclass(frozen=True)
class Contender:
    """size_bytes: of the saved files. learn_s: wall time."""

    score: Score
    size_bytes: int
    learn_s: float


def main() -> None:
    args = parse_arguments()
    train, check = lists_of(args.store) if args.store else (made_up(400, args.seed), made_up(200, args.seed + 1))
    print_machine(args, train, check)
    columns = [
        "",
        *(f"pairs/s, batch {batch:,}" for batch in args.batches),
        "recall@20",
        "nDCG@20",
        "kB",
        "learnt in s",
    ]
    print(" | ".join(columns))
    print(" | ".join("---" for _ in columns))
    contenders = {name: lambda s=settings: ours(s, train, check, args) for name, settings in VARIANTS.items()}
    for name, learn in {**contenders, "LightGBM LambdaRank": lambda: lightgbm_of(train, check, args)}.items():
        print_line(name, learn(), check, args)
    print_line("the prior alone", Contender(prior_of(train), 0, 0.0), check, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="store folder of a finished run")
    parser.add_argument("--batches", type=int, nargs="+", default=[300, 32_768])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17)
    return parser.parse_args()


def lists_of(store: Path) -> tuple[Lists, Lists]:
    """Lists to learn from and to validate on, of the store's latest graph and features."""
    graph, features = (sorted(store.glob(f"{kind}/*/data"))[-1] for kind in ("graph", "features"))
    train, check = (read_lists(Graph.open(graph), features / "past", split) for split in (LEARN, VALIDATE))
    return train, check


def made_up(queries: int, seed: int, size: int = 300) -> Lists:
    """Lists whose friends follow the default prior and, not linearly, the candidate's degree."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(queries * size, len(FEATURES))).astype(np.float32)
    curve = 3.0 * (np.abs(matrix[:, FEATURES.index("candidate_degree")]) < 0.5)
    truth = linear(matrix, default_prior()) + curve + draw.gumbel(size=len(matrix))
    rank = (-truth.reshape(queries, size)).argsort(1).argsort(1).reshape(-1)
    offsets = np.arange(queries + 1, dtype=np.int64) * size
    return Lists(matrix, rank < 5, offsets, np.full(queries, 5, np.int64))


def ours(ranker: RankerSettings, train: Lists, check: Lists, args: argparse.Namespace) -> Contender:
    settings = Settings(ranker=ranker, run=RunSettings(threads=args.threads, seed=args.seed))
    start = time.perf_counter()
    learnt, _ = LEARNERS[ranker.kind](train, check, settings)
    spent = time.perf_counter() - start
    with TemporaryDirectory() as folder:
        learnt.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        return Contender(Ranker.open(Path(folder)).score, size, spent)


def lightgbm_of(train: Lists, check: Lists, args: argparse.Namespace) -> Contender:
    defaults = RankerSettings()
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [20],
        "learning_rate": defaults.learning_rate,
        "num_leaves": 2**defaults.depth,
        "num_threads": args.threads,
        "seed": args.seed,
        "deterministic": True,
        "verbose": -1,
    }
    told, tested = train.telling(), check.telling()
    start = time.perf_counter()
    data, kept_apart = (lgb.Dataset(one.matrix, one.label, group=np.diff(one.offsets)) for one in (told, tested))
    stop = lgb.early_stopping(60, verbose=False)
    booster = lgb.train(parameters, data, defaults.trees, valid_sets=[kept_apart], callbacks=[stop])
    spent = time.perf_counter() - start
    return Contender(
        lambda matrix: booster.predict(matrix, num_threads=1).astype(np.float32),
        len(booster.model_to_string(num_iteration=booster.best_iteration)),
        spent,
    )


def prior_of(train: Lists) -> Score:
    from lookup_api.ranking.ranker_prior import learn_prior

    weights = learn_prior(train.telling())
    return lambda matrix: linear(matrix, weights)


def pairs_per_s(score: Score, matrix: Float32, batch: int, repeats: int) -> float:
    """CPU time, the best of repeats after one that does not count."""
    rows = np.resize(matrix, (max(batch, PAIRS_TIMED // batch * batch), matrix.shape[1]))
    best = math.inf
    for repeat in range(repeats + 1):
        start = time.process_time()
        for first in range(0, len(rows), batch):
            score(rows[first : first + batch])
        best = min(best, time.process_time() - start) if repeat else math.inf
    return len(rows) / best


def print_machine(args: argparse.Namespace, train: Lists, check: Lists) -> None:
    memory = psutil.virtual_memory().total / 2**30
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, scored by one")
    packages = ("xgboost-cpu", "onnxruntime", "torch", "lightgbm", "numpy")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(f"Python {platform.python_version()}, {versions}; {datetime.now(UTC):%Y-%m-%d}, seed {args.seed}")
    told, tested = train.telling(), check.telling()
    print(
        f"{args.store.name if args.store else 'made-up lists'}: learnt on {len(told.held):,} lists, "
        f"{len(told.label):,} pairs, {int(told.label.sum()):,} friends; "
        f"recall on {len(check.held):,} lists, {len(tested.held):,} of them with a friend\n"
    )


def print_line(name: str, contender: Contender, check: Lists, args: argparse.Namespace) -> None:
    speeds = [f"{pairs_per_s(contender.score, check.matrix, batch, args.repeats):,.0f}" for batch in args.batches]
    score = contender.score(check.matrix)
    quality = [f"{recall(check, score):.4f}", f"{ndcg(check, score):.4f}"]
    print(
        " | ".join([name, *speeds, *quality, f"{contender.size_bytes / 1e3:,.0f}", f"{contender.learn_s:.1f}"]),
        flush=True,
    )


if __name__ == "__main__":
    main()
