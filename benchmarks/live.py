"""Live ranking beside its bare kernels: the index searched, features gathered, the ranker.

    python -m benchmarks.live [--users 300000] [--candidates 1000] [--requests 400] [--folder FOLDER]

One thread, no cache, another user each time, each of whom has dismissed the whole nightly list. The kernels are timed
in the same run, interleaved with the requests, so that a busy machine slows both, and on other users, so that neither
finds the rows in the processor's caches that the other has just read. The rows are generated; FOLDER keeps the index
and the tables for another run.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xgboost as xgb

from benchmarks.lookup import print_machine
from benchmarks.serving_rows import DIMENSIONS, user_ids, write_tables
from index.recall import recall_at, sampled_rows
from index.sharded import IndexSpec, ShardedIndex, build_shard, finish
from infra.artifacts import Manifest, write_artifact
from infra.blobs import decode_ranking
from infra.kv import RANKINGS
from infra.releases import Release, ReleaseStore
from infra.settings import LadderSettings, Settings
from infra.store import ObjectStore, open_store
from infra.times import format_time
from lookup_api.ann_local import IDS
from lookup_api.deadline import Deadline
from lookup_api.ladder import NoFacts, Query
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.ranker_trees import TreesRanker
from lookup_api.ranking.scoring import RankingModel
from lookup_api.served_release import ServedRelease

AS_OF = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
CENTRES, SPREAD = 3000, 0.7
TREES, DEPTH, LEARN_ROWS = 300, 4, 20_000
WARM_UP = 30
KERNELS = ("index search", "feature gather", "ranker")
SEED = 17


@dataclass
class Times:
    """Milliseconds of each request and kernel: by the clock, and of CPU time, which a busy machine spoils less."""

    of: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, call: Callable[[], object]) -> object:
        start, start_cpu = time.perf_counter(), time.thread_time()
        found = call()
        self.cpu.setdefault(name, []).append((time.thread_time() - start_cpu) * 1e3)
        self.of.setdefault(name, []).append((time.perf_counter() - start) * 1e3)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--folder", help="kept between runs; a temporary one if not given")
    args = parser.parse_args()
    print_machine()
    print(", ".join(f"{p} {version(p)}" for p in ("numpy", "faiss-cpu", "xgboost-cpu")))
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(args.folder or scratch, create=True)
        release = ReleaseStore(store).current() or make_release(store, args.users)
        settings = LadderSettings(live_candidates=args.candidates, l1_mib=0, last_good_mib=0, deadline_ms=60_000)
        settings = settings.model_copy(update={"live_budget_ms": 60_000, "ann_budget_ms": 60_000})
        served = ServedRelease.open(store, release, settings)
        index = ShardedIndex.open(Path(args.folder or scratch) / release.artifacts["index"].path / "now")
        print_report(measure(served, index, settings, args.requests), args.candidates)
        served.give_back()


def make_release(store: ObjectStore, users: int) -> Release:
    """Index, ranker and tables as the stages leave them, of generated users in communities."""
    start = time.perf_counter()
    vectors = communities(users)
    made = {
        "index": (lambda data: write_index(data, vectors), users),
        "ranker": (write_ranker, 1),
        "serving_tables": (lambda data: write_tables(data, users, "bench", vectors=vectors), users),
    }
    manifests = {}
    for kind, (write, rows) in made.items():
        scratch = store.scratch()
        (scratch / "data").mkdir(parents=True)
        content_hash = write(scratch / "data")
        manifest = Manifest(
            kind, f"{AS_OF:%Y%m%dT%H%M%SZ}-{content_hash[:16]}", format_time(AS_OF), {}, {}, SEED, "generated", rows,
            content_hash, (),
        )  # fmt: skip
        manifests[kind] = write_artifact(store, scratch, manifest)
        print(f"{kind} of {users:,} users made after {time.perf_counter() - start:.0f} s", flush=True)
    release = ReleaseStore(store).make(manifests)
    ReleaseStore(store).publish(release)
    return release


def communities(users: int) -> np.ndarray:
    """Unit vectors around many centres, float32 [users, DIMENSIONS]."""
    draw = np.random.default_rng(SEED)
    centres = draw.standard_normal((CENTRES, DIMENSIONS), np.float32)
    vectors = SPREAD * draw.standard_normal((users, DIMENSIONS), np.float32)
    vectors += centres[draw.integers(0, CENTRES, users)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_index(data: Path, vectors: np.ndarray) -> str:
    spec = IndexSpec.from_settings(Settings().index, SEED)
    for shard in range(spec.shards):
        build_shard(vectors, spec, shard, data / "now")
    content_hash = finish(data / "now", spec)
    np.save(data / "now" / IDS, user_ids(len(vectors)))
    index = ShardedIndex.open(data / "now")
    recall = recall_at(index, vectors, sampled_rows(len(vectors), 200, SEED), 100)
    print(f"index: {spec.backend}, {spec.shards} shards, recall@100 {recall:.3f}")
    return content_hash


def write_ranker(data: Path) -> str:
    """Trees of the usual number and depth, learnt on noise that two columns explain a little."""
    draw = np.random.default_rng(SEED)
    matrix = draw.random((LEARN_ROWS, len(FEATURES)), np.float32)
    label = matrix[:, 0] + matrix[:, 5] + draw.normal(0, 0.5, LEARN_ROWS) > 1
    known = {"max_depth": DEPTH, "eta": 0.05, "objective": "binary:logistic", "nthread": 1, "base_score": 0.5}
    booster = xgb.train(known, xgb.DMatrix(matrix, label), TREES)
    ranker = TreesRanker(prior=draw.normal(0, 0.1, len(FEATURES)), booster=booster)
    ranker.save(data)
    return ranker.content_hash()


def measure(served: ServedRelease, index: ShardedIndex, settings: LadderSettings, requests: int) -> Times:
    """Some users are ranked live, as many others by the bare kernels alone, in turn."""
    assert served.live is not None
    assert served.live.model is not None
    lookup, model = Lookup.of(Settings(ladder=settings), Metrics()), served.live.model
    ids = user_ids(served.head.users)
    asked = np.random.default_rng(SEED).permutation(ids)[: 2 * (WARM_UP + requests)].tolist()
    times = Times()
    for at, (user_id, other) in enumerate(zip(asked[::2], asked[1::2], strict=True)):
        if at == WARM_UP:
            times = Times()
        listed = decode_ranking(served.tables.get(RANKINGS, user_id) or b"").ids()
        facts = NoFacts(barred=dict.fromkeys(listed, "dismissed"))
        query = Query(user_id, 20, frozenset(), False)

        def ask(query: Query = query, facts: NoFacts = facts) -> dict:
            return lookup.answer(query, served, facts, Deadline.after(60)).values

        answer = times.add("live rung", ask)
        assert answer["source"] == "live", answer
        kernels(served, index, model, other, ids, settings.live_candidates, times)
    return times


def kernels(
    served: ServedRelease, index: ShardedIndex, model: RankingModel, user_id: int, ids: np.ndarray, k: int, times: Times
) -> None:
    """What no live ranking can do without: search, read and decode the users found, assemble and score."""
    query = served.users([user_id]).embeddings(np.zeros(1, np.int64))
    rows, _ = times.add("index search", lambda: index.search(query, k))
    people = ids[rows[0][rows[0] >= 0]].tolist()
    users = times.add("feature gather", lambda: served.users(people))
    pair = np.random.default_rng(SEED).random((len(people), len(PAIR_FEATURES))).astype(np.float16)
    theirs = np.ascontiguousarray(users.features[:, : len(USER_FEATURES)])
    times.add("ranker", lambda: model.score(assemble(pair, theirs[0], theirs)))


def print_report(times: Times, candidates: int) -> None:
    for what, of in (("by the clock", times.of), ("CPU time", times.cpu)):
        kernel_times = zip(*(of[name] for name in KERNELS), strict=True)
        bare = [sum(one) for one in kernel_times]
        print(f"\n{candidates:,} candidates, {len(bare)} users, one thread, ms {what}")
        print(f"{'':16} {'p50':>7} {'p90':>7} {'p99':>7} {'max':>7}")
        for name, values in [*of.items(), ("bare kernels", bare)]:
            p50, p90, p99 = np.percentile(values, [50, 90, 99])
            print(f"{name:16} {p50:7.2f} {p90:7.2f} {p99:7.2f} {max(values):7.2f}")
        live = of["live rung"]
        print(f"ratio of medians {statistics.median(live) / statistics.median(bare):.2f}")


if __name__ == "__main__":
    main()
