"""Stage train_ranker: learns on past which candidates became friends."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import LEARN, VALIDATE, Csr, Graph, Int32, Int64, open_array
from infra.hashing import ContentHash
from jobs.blocks import parts_of
from jobs.context import StageContext, StageResult
from lookup_api.ranking.features import PAIR_FEATURES, assemble
from lookup_api.ranking.learning import Lists, learn, refuse_leak

MAX_PAIRS = 1_000_000
"""Pairs of one split held in memory; beyond them whole users are left out, evenly."""


def run(ctx: StageContext) -> StageResult:
    graph, features = Graph.open(ctx.inputs["graph"].path), ctx.inputs["features"].path / "past"
    train, check = (read_lists(graph, features, split) for split in (LEARN, VALIDATE))
    refuse_leak(train)
    settings = ctx.settings
    ranker, metrics = learn(train, check, settings.ranker, settings.run.threads, settings.run.seed)
    ranker.save(ctx.data)
    found = metrics["validation"]
    best = max(value["recall_at_20"] for name, value in found.items() if name not in ("ranker", "prior"))
    ctx.progress(
        f"train_ranker: {metrics['trees']} trees on {metrics['learn_labels']:,} labels, "
        f"validation recall@20 {found['ranker']['recall_at_20']:.4f}, best single signal {best:.4f}"
    )
    digest = ContentHash().text("trees", ranker.booster.save_raw("json").decode()).json("model", ranker.head())
    return StageResult(metrics["learn_labels"], digest.hexdigest(), metrics)


def read_lists(graph: Graph, features: Path, split: int, max_pairs: int = MAX_PAIRS) -> Lists:
    """Candidate lists on past of the users of one split, with what the ranker sees and the held-out friends marked.

    Only friendships between two people who had friends in past: how newcomers choose their first is another matter,
    and what tells it would mislead the rest.
    """
    settled = graph.past.connections.degrees() > 0
    pairs_held = np.asarray(graph.held_out)[settled[graph.held_out].all(axis=1)]
    both = np.concatenate([pairs_held, pairs_held[:, ::-1]])
    friends = Csr.from_pairs(graph.users, both[:, 0], both[:, 1])
    wanted = np.flatnonzero((graph.split == split) & (friends.degrees() > 0))
    users = open_array(features / "user_features.npy")
    parts = [_chosen(path, wanted) for path in parts_of(features)]
    pairs = sum(len(rows) for rows, _, _ in parts)
    step = -(-pairs // max_pairs) if pairs else 1
    wanted = wanted[::step]
    kept = [np.isin(rows, wanted) for rows, _, _ in parts]
    viewer = np.concatenate([_NO_ROWS, *(part[0][keep] for part, keep in zip(parts, kept, strict=True))])
    candidate = np.concatenate([_NO_ROWS, *(part[1][keep] for part, keep in zip(parts, kept, strict=True))])
    pair = np.concatenate([_NO_PAIRS, *(part[2][keep] for part, keep in zip(parts, kept, strict=True))])
    known = np.repeat(np.arange(graph.users, dtype=np.int64), friends.degrees()) * graph.users + friends.indices
    label = np.isin(viewer.astype(np.int64) * graph.users + candidate, known)
    asked, first = np.unique(viewer, return_index=True)
    offsets = np.append(first, len(viewer)).astype(np.int64)
    matrix = assemble(pair, users[viewer], users[candidate])
    return Lists(matrix, label, offsets, friends.degrees()[asked])


_NO_ROWS = np.empty(0, np.int32)
_NO_PAIRS = np.empty((0, len(PAIR_FEATURES)), np.float16)


def _chosen(path: Path, wanted: Int64) -> tuple[Int32, Int32, npt.NDArray[np.float16]]:
    """Users, candidates and pair features of one part, for the wanted users."""
    table: pa.Table = pq.read_table(path)
    table = table.filter(pa.array(np.isin(table["user_row"].to_numpy(), wanted)))
    columns = [table[name].to_numpy() for name in PAIR_FEATURES]
    pair = np.stack(columns, axis=1) if columns[0].size else _NO_PAIRS
    return table["user_row"].to_numpy(), table["candidate_row"].to_numpy(), pair.astype(np.float16, copy=False)
