"""Recall@20 for people all of whose friendships are hidden, beside popularity and shared affiliations.

    python -m benchmarks.cold_start SET [SET ...] [--share 0.05] [--seed 17] [--as-of T] [--work FOLDER] [--json FILE]
                                    [--set section.key=value ...]

SET: a folder of CSV files as `pymk import` takes them, or a lake. Of the users who have an attribute or an affiliation
and a friend, a seeded share loses every friendship; the pipeline runs on what is left, with default settings. What is
to be found are their hidden friends who keep a friend. Friendships between two newcomers are not asked for, and every
list, the peers' too, is read without other newcomers. recall@20 = hits / min(20, hidden friends to be found).

The peers rank everybody: popularity by friends left; shared affiliations by the sum over shared attribute values and
affiliations of 1 / people who have them. Sets without attributes and affiliations have no such users and are refused.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import scipy.sparse as sp

from benchmarks.pipeline import print_machine, pymk
from infra.artifacts import open_artifact
from infra.graph import Csr, Graph
from infra.schemas import AFFILIATIONS, CONNECTIONS, PROFILES
from infra.store import open_store
from jobs.metrics import BOOTSTRAP_ROUNDS, INTERVAL, find_hits, recall_at
from lookup_api.ranking.groups import memberships

TOP = 20
DEPTH = 100
"""Places of a list that are read: with other newcomers taken out there are still TOP."""
UNDATED = "2020-01-01"
"""As-of of a network without times."""
PYMK, POPULARITY, SHARED = "pymk", "popularity", "shared affiliations"

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


def main() -> None:
    args = parse_arguments()
    print_machine()
    print(f"{args.share:.0%} of the users with a profile lose every friendship, chosen by seed {args.seed}\n")
    print("| network | newcomers | to be found | popularity | shared affiliations | pymk | ratio to the better |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for folder in args.sets:
            work = (args.work or Path(temporary)) / folder.name
            found.append(measure(folder, work, args) | {"set": folder.name})
            print_row(found[-1], args.seed)
    ratios = [ratio(one) for one in found]
    print(f"\nmean ratio {np.mean(ratios):.3f}, least {min(ratios):.3f}")
    if args.json:
        kept = [{key: value for key, value in one.items() if key != "recall"} for one in found]
        args.json.write_text(json.dumps(kept, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--as-of", help="of every set; by default the day after its last friendship")
    parser.add_argument("--work", type=Path, help="keep lakes and stores there, and use what is finished")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    return parser.parse_args()


def measure(folder: Path, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """recall of every method: {"recall": {method: float64 [newcomers]}, "means", "newcomers", "hidden"}."""
    lake = folder
    if not (folder / CONNECTIONS.name).is_dir():
        lake = work / "lake"
        if not lake.exists():
            pymk("import", str(folder), f"--lake={lake}")
    hidden = hide(lake, work / "visible", args.share, args.seed)
    as_of = args.as_of or day_after(lake)
    flags = [flag for setting in args.settings for flag in ("--set", setting)]
    store = work / "store"
    made = pymk("run", f"--lake={work / 'visible'}", f"--store={store}", f"--as-of={as_of}", "--until=rank", *flags)
    folders = {
        kind: open_artifact(open_store(str(store)), kind, made["stages"][stage]["artifact_id"]).path
        for kind, stage in (("graph", "build_graph"), ("rankings", "rank"))
    }
    return compare(Graph.open(folders["graph"]), folders["rankings"], hidden)


def hide(lake: Path, visible: Path, share: float, seed: int) -> "Hidden":
    """Writes the lake without the friendships of a seeded share of its users with a profile; returns what is hidden."""
    ends = CONNECTIONS.schema.names[:2]
    connections = ds.dataset(lake / CONNECTIONS.name).to_table()
    pairs = np.stack([connections[name].cast(pa.int64()).to_numpy() for name in ends], axis=1)
    able = np.intersect1d(described(lake), pairs)
    if not len(able):
        sys.exit(f"{lake}: nobody has both a friend and an attribute or affiliation: cold start needs a profile")
    chosen = np.sort(np.random.default_rng(seed).choice(able, max(1, round(share * len(able))), replace=False))
    gone = np.isin(pairs, chosen)
    visible.mkdir(parents=True, exist_ok=True)
    for name in (PROFILES.name, AFFILIATIONS.name):
        if (lake / name).exists() and not (visible / name).exists():
            (visible / name).symlink_to((lake / name).resolve())
    (visible / CONNECTIONS.name).mkdir(exist_ok=True)
    kept = connections.filter(pa.array(~gone.any(axis=1)))
    pq.write_table(kept, visible / CONNECTIONS.name / "part-00000.parquet")
    one_sided = gone.sum(axis=1) == 1
    mine = np.where(gone[one_sided, 0], pairs[one_sided, 0], pairs[one_sided, 1])
    theirs = np.where(gone[one_sided, 0], pairs[one_sided, 1], pairs[one_sided, 0])
    return Hidden(chosen, np.unique(np.stack([mine, theirs], axis=1), axis=0))


@dataclass(frozen=True)
class Hidden:
    """chosen int64 [C]: ids of the newcomers. friends int64 [H, 2]: newcomer, friend who is none."""

    chosen: Int64
    friends: Int64


def described(lake: Path) -> Int64:
    """Ids of users with an attribute or an affiliation."""
    found = [np.empty(0, np.int64)]
    if (lake / PROFILES.name).exists():
        profiles = ds.dataset(lake / PROFILES.name).to_table()
        attributes = [name for name in profiles.column_names if name not in PROFILES.schema.names]
        known = np.zeros(profiles.num_rows, bool)
        for name in attributes:
            known |= pc.is_valid(profiles[name]).to_numpy()
        found.append(profiles["user_id"].to_numpy()[known])
    if (lake / AFFILIATIONS.name).exists():
        found.append(ds.dataset(lake / AFFILIATIONS.name).to_table(columns=["user_id"])["user_id"].to_numpy())
    return np.unique(np.concatenate(found))


def day_after(lake: Path) -> str:
    """The day after the last dated friendship, or UNDATED."""
    connections = ds.dataset(lake / CONNECTIONS.name).to_table()
    if "connected_at" not in connections.column_names:
        return UNDATED
    last = pc.max(connections["connected_at"]).as_py()
    return UNDATED if last is None else f"{last.date() + timedelta(days=1)}"


def compare(graph: Graph, rankings: Path, hidden: Hidden) -> dict[str, Any]:
    """Every method on the newcomers who have somebody to be found."""
    settled = graph.now.connections.degrees() > 0
    rows = np.stack([graph.rows_of(column) for column in hidden.friends.T], axis=1)
    rows = rows[(rows >= 0).all(axis=1)]
    rows = rows[settled[rows[:, 1]]]
    truth = Csr.from_pairs(graph.users, rows[:, 0], rows[:, 1])
    asked = np.unique(rows[:, 0])
    newcomer = np.zeros(graph.users, bool)
    newcomer[graph.rows_of(hidden.chosen)] = True
    lists = {
        POPULARITY: best_by(popularity(graph), asked, newcomer),
        SHARED: best_by(shared_affiliations(graph), asked, newcomer),
        PYMK: without(ranked(graph, rankings, asked), newcomer),
    }
    count = truth.degrees()[asked]
    recall = {name: recall_at(find_hits(found, asked, truth), count, TOP) for name, found in lists.items()}
    means = {name: float(values.mean()) for name, values in recall.items()}
    return {"recall": recall, "means": means, "newcomers": len(asked), "hidden": len(rows)}


def popularity(graph: Graph) -> Callable[[Int64], Any]:
    degree = graph.now.connections.degrees().astype(np.float64)
    return lambda rows: np.tile(degree, (len(rows), 1))


def shared_affiliations(graph: Graph) -> Callable[[Int64], Any]:
    """Sum over shared attribute values and affiliations of 1 / max(people who have them, 2)."""
    held = memberships(graph, graph.now)
    groups = int(held.indices.max()) + 1
    matrix = sp.csr_matrix((np.ones(held.entries), held.indices, held.indptr), (graph.users, groups))
    weight = 1 / np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 2)
    weighted, turned = (matrix @ sp.diags(weight)).tocsr(), matrix.T.tocsr()
    return lambda rows: (weighted[rows] @ turned).toarray()


def best_by(score: Callable[[Int64], Any], asked: Int64, newcomer: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """The best TOP rows of each asked row, newcomers left out, equal scores by row: int32 [Q, TOP]."""
    lists = []
    for start in range(0, len(asked), 256):
        scores = score(asked[start : start + 256])
        scores[:, newcomer] = -np.inf
        lists.append(np.argsort(-scores, axis=1, kind="stable")[:, :TOP])
    return np.concatenate(lists).astype(np.int32)


def ranked(graph: Graph, rankings: Path, asked: Int64) -> npt.NDArray[np.int32]:
    """pymk's lists of the asked rows, int32 [Q, DEPTH], -1 padded."""
    table = ds.dataset(rankings).to_table(filter=pc.field("user_id").isin(graph.ids[asked]))
    lists = np.full((len(asked), DEPTH), -1, np.int32)
    user, candidate = (graph.rows_of(table[name].to_numpy()) for name in ("user_id", "candidate_id"))
    lists[np.searchsorted(asked, user), table["rank"].to_numpy() - 1] = candidate
    return lists


def without(lists: npt.NDArray[np.int32], left_out: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """The lists with some people taken out, the others moved up."""
    kept = (lists >= 0) & ~left_out[lists]
    order = np.argsort(~kept, axis=1, kind="stable")
    return np.take_along_axis(np.where(kept, lists, -1), order, axis=1).astype(np.int32)


def ratio(found: dict[str, Any]) -> float:
    means = found["means"]
    return float(means[PYMK] / max(means[POPULARITY], means[SHARED]))


def ratio_interval(found: dict[str, Any], seed: int) -> tuple[float, float]:
    """Paired percentile bootstrap over newcomers; the better peer is the one that is better over all of them."""
    recall, means = found["recall"], found["means"]
    better = recall[POPULARITY if means[POPULARITY] >= means[SHARED] else SHARED]
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(better)]))
    drawn = rng.integers(0, len(better), (BOOTSTRAP_ROUNDS, len(better)))
    ratios: Float64 = recall[PYMK][drawn].mean(axis=1) / np.maximum(better[drawn].mean(axis=1), 1e-9)
    low, high = np.quantile(ratios, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return float(low), float(high)


def print_row(found: dict[str, Any], seed: int) -> None:
    means = " | ".join(f"{found['means'][name]:.4f}" for name in (POPULARITY, SHARED, PYMK))
    low, high = ratio_interval(found, seed)
    print(
        f"| {found['set']} | {found['newcomers']:,} | {found['hidden']:,} | {means} "
        f"| {ratio(found):.2f} ({low:.2f} to {high:.2f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
