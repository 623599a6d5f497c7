"""Stage rank: the best people for every active user, with reasons.

Two passes over the users: the first scores candidates and keeps each user's best, the second orders them
(`jobs.ordering`) and finds reasons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.graph import Graph, ViewName
from infra.hashing import ContentHash
from infra.schemas import RANKINGS
from infra.settings import RankSettings
from jobs.blocks import RunAll, hash_parts, part_path, write_part
from jobs.context import StageContext, StageResult
from jobs.ordering import Ordering, settled_users
from jobs.reason_rows import ReasonNames
from jobs.scoring import Block, Pairs, Scorer, blocks_of, open_graph, open_scorer
from lookup_api.ranking import sources
from lookup_api.ranking.exposure import Scored, prices
from lookup_api.ranking.popular import fill_popular, most_connected
from lookup_api.ranking.reasons import ReasonFinder
from lookup_api.ranking.top import top_per_user

DEPTH = 100
"""Best candidates by score that are ordered again, at least: how many are kept does not change who is first."""

PRICES = "_prices.npy"
"""Beside the parts: what exposure takes from each person's score, float32 [N], for lists that are made live. Readers of
Parquet folders pass over names with an underscore."""

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ranked:
    """Ranked pairs of a block, by user and rank. user, candidate, rank int32 [n]; score float32 [n]; sources uint8
    [n]. place int64 [n]: in the block's pairs, -1 for a popular person shown to a user without candidates."""

    user: Int32
    candidate: Int32
    rank: Int32
    score: npt.NDArray[np.float32]
    sources: npt.NDArray[np.uint8]
    place: npt.NDArray[np.int64]

    @property
    def warm(self) -> npt.NDArray[np.bool_]:
        """Rows of users who have candidates."""
        return self.place >= 0

    def scored(self) -> Scored:
        """Lists of the users who have candidates."""
        warm = self.warm
        return Scored(self.user[warm], self.candidate[warm], self.score[warm])

    def where(self, chosen: npt.NDArray[Any]) -> "Ranked":
        return Ranked(**{f.name: getattr(self, f.name)[chosen] for f in fields(Ranked)})

    def save(self, path: Path) -> None:
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(Ranked)})

    @classmethod
    def open(cls, path: Path) -> "Ranked":
        with np.load(path) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(Ranked)})


def rank_block(
    graph: Graph, view: ViewName, scorer: Scorer, popular: Int32, block: Block, pairs: Pairs, per_user: int
) -> Ranked:
    """The best `per_user` candidates of each user of a block; popular people for users without any.

    popular: rows, most connected first (`most_connected`). Pure: the same pairs give the same ranks in any block.
    """
    users = np.arange(block.first, block.last, dtype=np.int32)
    return rank_scored(graph, view, popular, users, pairs, scorer.score(pairs), per_user)


def rank_scored(
    graph: Graph,
    view: ViewName,
    popular: Int32,
    users: Int32,
    pairs: Pairs,
    scores: npt.NDArray[np.float32],
    per_user: int,
) -> Ranked:
    """The same of any users int32 [B], ascending, whose pairs have scores float32 [n]."""
    top = top_per_user(pairs.user, pairs.candidate, scores, per_user)
    at = top.order
    warm = Ranked(pairs.user[at], pairs.candidate[at], top.rank, scores[at], pairs.sources[at], at)
    cold = np.setdiff1d(users, pairs.user)
    return _merged(warm, _cold(graph, view, popular, cold, per_user)) if len(cold) else warm


def _cold(graph: Graph, view: ViewName, popular: Int32, users: Int32, per_user: int) -> Ranked:
    """Popular people; the score is how connected they are beside the most connected."""
    connections = graph.view(view).connections
    user, candidate, rank = fill_popular(users, popular, connections, graph.excluded, per_user)
    degree = connections.indptr[candidate + 1] - connections.indptr[candidate]
    most = np.diff(connections.indptr[popular[0] : popular[0] + 2])[0] if len(popular) else 1
    bits = np.full(len(user), sources.POPULAR, np.uint8)
    return Ranked(user, candidate, rank, (degree / most).astype(np.float32), bits, np.full(len(user), -1, np.int64))


def _merged(first: Ranked, second: Ranked) -> Ranked:
    columns = {f.name: np.concatenate([getattr(one, f.name) for one in (first, second)]) for f in fields(Ranked)}
    return Ranked(**columns).where(np.lexsort((columns["rank"], columns["user"])))


def reordered(ranked: Ranked, ordering: Ordering, per_user: int) -> Ranked:
    """The first `per_user` of each list as they are shown; scores stay as they are."""
    warm, cold = ranked.where(ranked.warm), ranked.where(~ranked.warm & (ranked.rank <= per_user))
    top = ordering.best(warm.scored(), per_user)
    return _merged(replace(warm.where(top.order), rank=top.rank), cold)


def rows_of(graph: Graph, ranked: Ranked, finder: ReasonFinder, names: ReasonNames) -> pa.Table:
    """Ranked pairs as rows of the rankings table."""
    reasons = finder.find(ranked.user, ranked.candidate, ranked.sources)
    columns = [
        pa.array(graph.ids[ranked.user]),
        pa.array(graph.ids[ranked.candidate]),
        pa.array(ranked.rank),
        pa.array(ranked.score),
        names.rows(reasons),
    ]
    return pa.Table.from_arrays(columns, schema=RANKINGS)


@lru_cache(maxsize=2)
def _lookups(graph_path: Path) -> tuple[ReasonFinder, ReasonNames, Int32]:
    graph = open_graph(graph_path)
    finder = ReasonFinder.of(graph, "now")
    return finder, ReasonNames.open(graph_path, graph), most_connected(graph.now.connections)


@dataclass(frozen=True)
class Task:
    """What a Spark worker needs to rank the now view; small, so that it travels. between: from pass to pass."""

    graph: Path
    embeddings: Path
    features: Path
    ranker: Path
    blocks: list[Block]
    between: Path
    out: Path
    settings: RankSettings

    def chosen(self, number: int) -> Path:
        return self.between / f"{number}.npz"

    @property
    def prices(self) -> Path:
        return self.between / "prices.npy"


def choose_part(task: Task, number: int) -> dict[str, Any]:
    """Scores one block and keeps each user's best, by score."""
    block = task.blocks[number]
    graph = open_graph(task.graph)
    _, _, popular = _lookups(task.graph)
    scorer = open_scorer(task.features, task.ranker, "now")
    pairs = block.pairs()
    ranked = rank_block(graph, "now", scorer, popular, block, pairs, max(task.settings.per_user, DEPTH))
    ranked.save(task.chosen(number))
    users = np.unique(ranked.user)
    return {"pairs": len(pairs), "users": len(users), "popular_users": len(np.unique(ranked.user[~ranked.warm]))}


def write_ranked(task: Task, number: int) -> dict[str, Any]:
    """Orders one block's best and writes its part file."""
    graph = open_graph(task.graph)
    finder, names, _ = _lookups(task.graph)
    ordering = Ordering.of(task.settings, np.load(task.prices), task.graph, task.embeddings, "now")
    ranked = reordered(Ranked.open(task.chosen(number)), ordering, task.settings.per_user)
    write_part(rows_of(graph, ranked, finder, names), part_path(task.out, number))
    return {"rows": len(ranked.user)}


def run(ctx: StageContext) -> StageResult:
    from jobs.spark import run_blocks

    return make(ctx, partial(run_blocks, ctx.spark()))


def make(ctx: StageContext, run_all: RunAll) -> StageResult:
    """The stage, with `run_all` to run its blocks."""
    graph_path, embeddings, features, ranker = (
        ctx.inputs[kind].path for kind in ("graph", "embeddings", "features", "ranker")
    )
    users, settings = Graph.open(graph_path).users, ctx.settings.rank
    blocks = blocks_of(features / "now", users)
    with TemporaryDirectory(prefix="rank-", dir=ctx.data.parent) as between:
        task = Task(graph_path, embeddings, features, ranker, blocks, Path(between), ctx.data, settings)
        counts = run_all(partial(choose_part, task), len(blocks))
        price = prices(partial(_lists, task), users, settings.exposure)
        np.save(task.prices, price)
        np.save(ctx.data / PRICES, price)
        run_all(partial(write_ranked, task), len(blocks))
    parts = hash_parts(ctx.data)
    digest = ContentHash().text("parts", parts.hexdigest()).array(PRICES, price)
    totals = {name: sum(count[name] for count in counts) for name in ("pairs", "users", "popular_users")}
    metrics = {
        "pairs_scored": totals["pairs"],
        "users_ranked": totals["users"],
        "users_with_popular_only": totals["popular_users"],
        "coverage": totals["users"] / users if users else 0.0,
        "highest_price": float(price.max(initial=0.0)),
    }
    ctx.progress(f"ranked {totals['users']:,} of {users:,} users from {totals['pairs']:,} pairs")
    return StageResult(parts.rows, digest.hexdigest(), metrics)


def _lists(task: Task) -> Iterator[Scored]:
    settled = settled_users(task.graph, "now")
    for number in range(len(task.blocks)):
        scored = Ranked.open(task.chosen(number)).scored()
        yield scored.where(settled[scored.user])
