"""Stage candidates: whom each user might know, from several sources, in both views."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index.sharded import ShardedIndex
from infra.graph import Graph, Int32, ViewName, open_array
from infra.hashing import ContentHash
from infra.schemas import CANDIDATES
from infra.settings import Settings
from jobs.blocks import VIEWS, RunAll, asked_users, blocks_of, hash_parts, part_path, write_part
from jobs.context import StageContext, StageResult
from lookup_api.ranking.candidates import Candidates, Search, block_candidates
from lookup_api.ranking.network import open_network
from lookup_api.ranking.sources import NAMES


@dataclass(frozen=True)
class Work:
    """What a task needs to make a block of one view's candidates."""

    view: ViewName
    graph: Path
    embeddings: Path
    index: Path
    out: Path
    settings: Settings


def run(ctx: StageContext) -> StageResult:
    from jobs.spark import run_blocks

    return make(ctx, partial(run_blocks, ctx.spark()))


def make(ctx: StageContext, run_all: RunAll) -> StageResult:
    """The stage, with `run_all` to run its blocks."""
    graph = Graph.open(ctx.inputs["graph"].path)
    settings, digest = ctx.settings, ContentHash()
    metrics: dict[str, Any] = {}
    rows = 0
    for view in VIEWS:
        out = ctx.data / view
        out.mkdir()
        work = Work(
            view, ctx.inputs["graph"].path, ctx.inputs["embeddings"].path, ctx.inputs["index"].path, out, settings
        )
        users = asked_users(graph, view, settings.candidates.learn_users, settings.run.seed)
        counts = run_all(partial(candidate_block, work), blocks_of(len(users), settings.candidates.block))
        parts = hash_parts(out)
        digest.text(view, parts.hexdigest())
        rows += parts.rows
        metrics[view] = _metrics(counts, len(users))
        ctx.progress(f"candidates: {view}: {parts.rows:,} for {len(users):,} users")
    return StageResult(rows, digest.hexdigest(), metrics)


def _metrics(counts: list[dict[str, Any]], users: int) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return {"users": users, **{name: int(total[name]) for name in ("rows", "users_without", *NAMES.values())}}


def candidate_block(work: Work, number: int) -> dict[str, int]:
    """Writes one part and returns how many rows it has, and how many each source named."""
    chosen, seed = work.settings.candidates, work.settings.run.seed
    network = open_network(work.graph, work.view)
    users = asked_users(_graph(work.graph), work.view, chosen.learn_users, seed)
    users = users[number * chosen.block : (number + 1) * chosen.block]
    found = block_candidates(network, users, chosen, seed, _search(work))
    table = as_table(users, found)
    write_part(table, part_path(work.out, number))
    sources = table["sources"].to_numpy()
    named = {name: int(np.count_nonzero(sources & bit)) for bit, name in NAMES.items()}
    return {"rows": table.num_rows, "users_without": int((found.rows[:, 0] < 0).sum()), **named}


def as_table(users: Int32, found: Candidates) -> pa.Table:
    """Lists of the users int32 [B] as the CANDIDATES table, sorted by user and candidate."""
    real = found.rows >= 0
    who = np.repeat(users, real.sum(axis=1))
    near = found.near[real].T.copy()
    return pa.table([who, found.rows[real], found.sources[real], *near], schema=CANDIDATES)


def _search(work: Work) -> Search | None:
    k = work.settings.candidates.ann
    if k == 0:
        return None
    vectors, index = _vectors(work.embeddings, work.view), _index(work.index, work.view)

    def nearest(users: Int32) -> Int32:
        return np.asarray(index.search(np.ascontiguousarray(vectors[users]), k)[0], np.int32)

    return nearest


@lru_cache(maxsize=1)
def _graph(folder: Path) -> Graph:
    return Graph.open(folder)


@lru_cache(maxsize=1)
def _index(folder: Path, view: ViewName) -> ShardedIndex:
    return ShardedIndex.open(folder / view)


@lru_cache(maxsize=1)
def _vectors(folder: Path, view: ViewName) -> npt.NDArray[np.float32]:
    return open_array(folder / f"{view}.npy")
