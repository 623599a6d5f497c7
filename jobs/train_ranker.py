"""Stage train_ranker: learns on past which candidates became friends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import LEARN, VALIDATE, Csr, Graph, Int32, Int64, open_array
from infra.hashing import ContentHash
from infra.settings import Settings
from jobs.blocks import parts_of
from jobs.context import StageContext, StageResult
from jobs.newcomer_lists import NEWCOMERS, open_lists
from lookup_api.ranking.features import PAIR_FEATURES, assemble
from lookup_api.ranking.leaks import refuse_leak
from lookup_api.ranking.learning import learn_trees, report
from lookup_api.ranking.newcomer_weights import learn as learn_newcomers
from lookup_api.ranking.newcomers import FILE
from lookup_api.ranking.ranker import Ranker
from lookup_api.ranking.ranker_growth import TRUSTED_LISTS
from lookup_api.ranking.ranker_lists import Lists, gain

MAX_PAIRS = 1_000_000
"""Pairs of one split held in memory; beyond them whole users are left out, evenly."""


def run(ctx: StageContext) -> StageResult:
    graph, features = Graph.open(ctx.inputs["graph"].path), ctx.inputs["features"].path / "past"
    train, check = read_splits(graph, features)
    for lists in (train, check):
        refuse_leak(lists)
    ranker, metrics = learn(train, check, ctx.settings)
    ranker.save(ctx.data)
    newcomers = learn_newcomers(open_lists(ctx.inputs["features"].path / NEWCOMERS))
    newcomers.save(ctx.data)
    found = metrics["validation"]
    best = max(value["recall_at_20"] for name, value in found.items() if name not in ("ranker", "prior"))
    ctx.progress(
        f"train_ranker: {ranker.kind} on {metrics['learn_labels']:,} labels, "
        f"validation recall@20 {found['ranker']['recall_at_20']:.4f}, best single signal {best:.4f}"
    )
    digest = ContentHash().text("ranker", ranker.content_hash()).json(FILE, newcomers.head())
    return StageResult(metrics["learn_labels"], digest.hexdigest(), metrics | {"newcomers": newcomers.head()})


def learn(train: Lists, check: Lists, settings: Settings) -> tuple[Ranker, dict[str, Any]]:
    """A ranker of the kind that the settings name, and what to report about it."""
    return LEARNERS[settings.ranker.kind](train, check, settings)


def _learn_auto(train: Lists, check: Lists, settings: Settings) -> tuple[Ranker, dict[str, Any]]:
    """Trees; their mean with a network where users kept apart gain by it, by more than a standard error.

    Where those are too few to tell no network is learnt: with few labels it learns single friendships by heart.
    """
    run, tested = settings.run, check.telling()
    trees, told = learn_trees(train, check, settings.ranker, run.threads, run.seed)
    ranker: Ranker = trees
    if len(tested.held) >= TRUSTED_LISTS:
        from jobs.train_mlp import joined

        both, learnt = joined(trees, train, check, settings)
        mean, error = gain(tested, both.score(tested.matrix), trees.score(tested.matrix))
        told["gain_by_network"] = {"ndcg_at_20": mean, "standard_error": error}
        if learnt["best_epoch"] and mean > error:
            ranker, told = both, told | learnt
    return ranker, report(ranker, check, run.seed) | told


def _learn_trees(train: Lists, check: Lists, settings: Settings) -> tuple[Ranker, dict[str, Any]]:
    ranker, told = learn_trees(train, check, settings.ranker, settings.run.threads, settings.run.seed)
    return ranker, report(ranker, check, settings.run.seed) | told


def _learn_mlp(train: Lists, check: Lists, settings: Settings) -> tuple[Ranker, dict[str, Any]]:
    from jobs.train_mlp import learn_mlp  # torch is loaded only for a network

    return learn_mlp(train, check, settings)


def _learn_ensemble(train: Lists, check: Lists, settings: Settings) -> tuple[Ranker, dict[str, Any]]:
    from jobs.train_mlp import learn_ensemble

    return learn_ensemble(train, check, settings)


LEARNERS: dict[str, Callable[[Lists, Lists, Settings], tuple[Ranker, dict[str, Any]]]] = {
    "auto": _learn_auto,
    "trees": _learn_trees,
    "mlp": _learn_mlp,
    "ensemble": _learn_ensemble,
}
"""Kind -> how it is learnt on one set of lists and checked on another; the ranker, and what to report about it."""


def read_splits(graph: Graph, features: Path) -> tuple[Lists, Lists]:
    """Lists to learn from and lists to check on. features: of the past view."""
    return read_lists(graph, features, LEARN), read_lists(graph, features, VALIDATE)


def read_lists(graph: Graph, features: Path, split: int, max_pairs: int = MAX_PAIRS) -> Lists:
    """Candidate lists on past of the users of one split, with what the ranker sees and the held-out friends marked.

    A held-out friendship counts on one side only. Those with a user of REPORT are the report's, so lists hold no user
    of REPORT at all; those between LEARN and VALIDATE are for validation, so lists of LEARN hold users of LEARN only.
    Friendships of people without friends in past do not count either: how newcomers choose their first is another
    matter, and what tells it would mislead the rest. Such friends are left out of the lists: they are no strangers.
    """
    friends, others = _held_out_of(graph, split)
    wanted = np.flatnonzero(friends.degrees() > 0)
    shown = np.isin(graph.split, _counterparts(split))
    parts = [_chosen(path, wanted, shown, others) for path in parts_of(features)]
    pairs = sum(len(rows) for rows, _, _ in parts)
    step = -(-pairs // max_pairs) if pairs else 1
    wanted = wanted[::step]
    kept = [np.isin(rows, wanted) for rows, _, _ in parts]
    viewer = np.concatenate([_NO_ROWS, *(part[0][keep] for part, keep in zip(parts, kept, strict=True))])
    candidate = np.concatenate([_NO_ROWS, *(part[1][keep] for part, keep in zip(parts, kept, strict=True))])
    pair = np.concatenate([_NO_PAIRS, *(part[2][keep] for part, keep in zip(parts, kept, strict=True))])
    users = open_array(features / "user_features.npy")
    asked, first = np.unique(viewer, return_index=True)
    offsets = np.append(first, len(viewer)).astype(np.int64)
    matrix = assemble(pair, users[viewer], users[candidate])
    return Lists(matrix, _among(friends, viewer, candidate), offsets, friends.degrees()[asked])


def _counterparts(split: int) -> list[int]:
    """The splits that users in the lists of this one are of."""
    return [LEARN] if split == LEARN else [LEARN, split]


def _held_out_of(graph: Graph, split: int) -> tuple[Csr, Csr]:
    """Held-out friends of the users of one split: those that count, and the others; both N rows, one direction."""
    both = np.concatenate([graph.held_out, graph.held_out[:, ::-1]])
    both = both[graph.split[both[:, 0]] == split]
    settled = graph.past.connections.degrees() > 0
    counts = settled[both].all(axis=1) & np.isin(graph.split[both[:, 1]], _counterparts(split))
    mine, others = both[counts], both[~counts]
    return Csr.from_pairs(graph.users, *mine.T), Csr.from_pairs(graph.users, *others.T)


def _among(friends: Csr, viewer: Int32, candidate: Int32) -> npt.NDArray[np.bool_]:
    """Whether each pair is an entry of `friends`."""
    known = np.repeat(np.arange(friends.rows, dtype=np.int64), friends.degrees()) * friends.rows + friends.indices
    return np.isin(viewer.astype(np.int64) * friends.rows + candidate, known)


_NO_ROWS = np.empty(0, np.int32)
_NO_PAIRS = np.empty((0, len(PAIR_FEATURES)), np.float16)


def _chosen(
    path: Path, wanted: Int64, shown: npt.NDArray[np.bool_], unwanted: Csr
) -> tuple[Int32, Int32, npt.NDArray[np.float16]]:
    """Users, candidates and pair features of one part: the wanted users' pairs with those shown, less the unwanted."""
    table: pa.Table = pq.read_table(path)
    viewer, candidate = (table[name].to_numpy() for name in ("user_row", "candidate_row"))
    keep = np.isin(viewer, wanted) & shown[candidate] & ~_among(unwanted, viewer, candidate)
    columns = [table[name].to_numpy()[keep] for name in PAIR_FEATURES]
    pair = np.stack(columns, axis=1) if columns[0].size else _NO_PAIRS
    return viewer[keep], candidate[keep], pair.astype(np.float16, copy=False)
