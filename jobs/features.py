"""Stage features: what the ranker sees of each candidate pair, and of each user, in both views."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import Graph, ViewName, open_array
from infra.hashing import ContentHash
from infra.schemas import CANDIDATES
from jobs.blocks import VIEWS, RunAll, hash_parts, part_path, parts_of, write_part
from jobs.context import StageContext, StageResult
from jobs.newcomer_lists import NEWCOMERS, newcomer_lists, save_lists
from jobs.newcomer_towers import TOWERS, learn_towers, tell
from lookup_api.ranking.evidence import pair_features, user_features
from lookup_api.ranking.factors import factorise
from lookup_api.ranking.features import PAIR_FEATURES, PROXIMITY, USER_FEATURES
from lookup_api.ranking.network import open_network

if TYPE_CHECKING:
    from gnn.two_tower import TrainedTowers

FACTORS = "factors.npy"
"""Friendship factors of every row, float32 [2, N, K]; those of now stay, for pairs looked at after the night."""
SCHEMA = pa.schema(
    [*CANDIDATES, *(pa.field(name, pa.float16(), nullable=False) for name in PAIR_FEATURES[len(PROXIMITY) :])]
)


@dataclass(frozen=True)
class Work:
    """What a task needs to measure one part of one view's candidates."""

    view: ViewName
    graph: Path
    embeddings: Path
    candidates: Path
    out: Path


def run(ctx: StageContext) -> StageResult:
    from jobs.spark import run_blocks

    return make(ctx, partial(run_blocks, ctx.spark()))


def make(ctx: StageContext, run_all: RunAll) -> StageResult:
    """The stage, with `run_all` to run its blocks."""
    digest, rows = ContentHash(), 0
    graph, embeddings = ctx.inputs["graph"].path, ctx.inputs["embeddings"].path
    towers = _towers(ctx)
    for view in VIEWS:
        out = ctx.data / view
        out.mkdir()
        candidates = ctx.inputs["candidates"].path / view
        work = Work(view, graph, embeddings, candidates, out)
        network = open_network(graph, view)
        factors = factorise(network.friends, ctx.settings.run.seed, ctx.settings.run.threads)
        np.save(out / FACTORS, np.stack(factors))
        if towers:
            np.save(out / TOWERS, towers.vectors(Graph.open(graph), view))
        run_all(partial(feature_block, work), len(parts_of(candidates)))
        users = user_features(network)
        np.save(out / "user_features.npy", users)
        parts = hash_parts(out)
        digest.text(view, parts.hexdigest()).array(f"{view}.users", users)
        rows += parts.rows
        ctx.progress(f"features: {view}: {parts.rows:,} pairs")
    told = partial(tell, towers=_vectors(ctx.data / "past" / TOWERS)) if towers else None
    lists = newcomer_lists(Graph.open(graph), ctx.settings.candidates, ctx.settings.run.seed, told)
    for name in (FACTORS, TOWERS):
        (ctx.data / "past" / name).unlink(missing_ok=True)
    digest.text(NEWCOMERS, save_lists(lists, ctx.data / NEWCOMERS).hexdigest())
    ctx.progress(f"features: {len(lists.held):,} users as if they were new")
    names = {"pair": list(PAIR_FEATURES), "user": list(USER_FEATURES)}
    return StageResult(rows, digest.hexdigest(), names | ({"towers": towers.metrics} if towers else {}))


def _towers(ctx: StageContext) -> "TrainedTowers | None":
    if ctx.settings.newcomers.kind == "logit":
        return None
    towers = learn_towers(Graph.open(ctx.inputs["graph"].path), ctx.settings.run.seed)
    ctx.progress(f"features: two towers after {towers.metrics['best_epoch']} epochs")
    return towers


def feature_block(work: Work, number: int) -> dict[str, int]:
    """Writes the features of one part of candidates; returns how many rows it has."""
    named = pq.read_table(part_path(work.candidates, number))
    rows, candidates = named["user_row"].to_numpy(), named["candidate_row"].to_numpy()
    users, first = np.unique(rows, return_index=True)
    offsets = np.append(first, len(rows)).astype(np.int64)
    network = open_network(work.graph, work.view)
    near = np.stack([named[name].to_numpy() for name in PROXIMITY], axis=1)
    vectors, factors = _vectors(work.embeddings / f"{work.view}.npy"), _vectors(work.out / FACTORS)
    pairs = pair_features(network, users, offsets, candidates, near, vectors, factors)
    if (work.out / TOWERS).exists():
        tell(pairs, rows, candidates, network.friends, _vectors(work.out / TOWERS))
    more = (pa.array(column) for column in pairs[:, len(PROXIMITY) :].T.copy())
    write_part(pa.table([*named.columns, *more], schema=SCHEMA), part_path(work.out, number))
    return {"rows": named.num_rows}


@lru_cache(maxsize=2)
def _vectors(path: Path) -> npt.NDArray[np.float32]:
    return open_array(path)
