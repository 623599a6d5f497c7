"""Stage serving_tables: what the lookup API reads, in hash-partitioned LMDB files.

Of inactive users there are bars alone (jobs.inactive_bars).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.blob_writer import Blobs
from infra.errors import CorruptArtifact
from infra.graph import Graph, open_array
from infra.kv import BARS, CANDIDATES, META, NEIGHBOURS, RANKINGS, USERS, KeyValueWriter
from infra.lmdb_tables import LmdbWriter
from infra.serving_meta import GROUP_RULES_KEY, HEAD_KEY, POPULAR_KEY, PRICE, ServingHead
from infra.settings import ServingSettings
from jobs.blocks import part_path
from jobs.context import StageContext, StageResult
from jobs.inactive_bars import BarRows
from jobs.rank import PRICES
from jobs.scoring import Block, Pairs, Scorer, blocks_of
from jobs.serving_blobs import (
    bar_blobs,
    candidate_blobs,
    lists_of,
    neighbour_blobs,
    paged_blobs,
    popular_lists,
    ranking_blobs,
    user_blobs,
)
from lookup_api.ranking.capped_groups import CappedGroups
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES
from lookup_api.ranking.popular import most_connected
from lookup_api.ranking.rules import CAPPED, caps_of

T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """What the blobs of users are made from. known float32 [N, U + 1]: user features, then the price; popular int32:
    rows of the popular list, -1 for who has left it."""

    graph: Graph
    groups: CappedGroups
    known: npt.NDArray[np.float32]
    embeddings: npt.NDArray[np.float32] | None
    popular: npt.NDArray[np.int32]
    settings: ServingSettings
    caps: tuple[int, ...]

    @cached_property
    def degrees(self) -> npt.NDArray[np.int64]:
        return self.graph.now.connections.degrees()

    def encode(
        self, users: npt.NDArray[np.int32], pairs: Pairs, scores: npt.NDArray[np.float32], rankings: pa.Table
    ) -> dict[str, Blobs]:
        """Of some users, rows ascending, by table. pairs, scores float32 [n]: their candidates; rankings: RANKINGS."""
        graph, keep = self.graph, self.settings
        lists = lists_of(graph, users, rankings)
        return {
            RANKINGS: paged_blobs(ranking_blobs(graph, self.groups, lists), keep.first_page, self.caps),
            CANDIDATES: candidate_blobs(graph, users, pairs, scores, keep.candidates),
            USERS: user_blobs(graph, users, self.groups, self.known, self.embeddings),
            NEIGHBOURS: neighbour_blobs(graph, users, self.popular, self.degrees, keep.neighbours),
            BARS: bar_blobs(graph, users, self.degrees, keep.neighbours),
        }


@dataclass(frozen=True)
class Night:
    """Everybody's pairs and rankings, in blocks of users."""

    encoder: Encoder
    scorer: Scorer
    rankings: Path
    blocks: Sequence[Block]

    @classmethod
    def open(cls, ctx: StageContext) -> "Night":
        graph = Graph.open(ctx.inputs["graph"].path)
        features = ctx.inputs["features"].path
        vectors = ctx.inputs["embeddings"].path / "now.npy" if "embeddings" in ctx.inputs else None
        scorer = Scorer.open(features, ctx.inputs["ranker"].path, "now")
        prices = open_array(ctx.inputs["rankings"].path / PRICES)
        encoder = Encoder(
            graph=graph,
            groups=CappedGroups.of(graph, ctx.settings.rules),
            known=np.concatenate([scorer.user_features, prices[:, None]], axis=1),
            embeddings=open_array(vectors) if vectors else None,
            popular=most_connected(graph.now.connections)[: ctx.settings.serving.popular],
            settings=ctx.settings.serving,
            caps=caps_of(ctx.settings.rules),
        )
        return cls(encoder, scorer, ctx.inputs["rankings"].path, blocks_of(features / "now", graph.users))

    def encode(self, number: int) -> dict[str, Blobs]:
        """The blobs of one block, by table."""
        block = self.blocks[number]
        pairs = block.pairs()
        users = np.arange(block.first, block.last, dtype=np.int32)
        return self.encoder.encode(users, pairs, self.scorer.score(pairs), self._ranked(number, block))

    def _ranked(self, number: int, block: Block) -> pa.Table:
        """Rankings of the block; the rank stage cut its parts as the features are cut."""
        table = pq.read_table(part_path(self.rankings, number))
        ids = table["user_id"].to_numpy()
        rows = self.encoder.graph.rows_of(ids[[0, -1]]) if len(ids) else np.array([block.first])
        if not ((rows >= block.first) & (rows < block.last)).all() and len(ids):
            raise CorruptArtifact(f"{self.rankings}: part {number} is of other users", "Run the rank stage again.")
        return table


def head_of(encoder: Encoder) -> ServingHead:
    vectors = encoder.embeddings
    return ServingHead(
        users=encoder.graph.users,
        pair_features=PAIR_FEATURES,
        user_features=(*USER_FEATURES, PRICE),
        attributes=encoder.graph.attributes,
        caps=CAPPED,
        embedding_dimensions=0 if vectors is None else vectors.shape[1],
        entries=encoder.graph.now.connections.entries,
    )


def write_head(writer: KeyValueWriter, encoder: Encoder) -> None:
    """The meta table: names of columns, the popular list, and the caps of groups."""
    popular = ranking_blobs(encoder.graph, encoder.groups, popular_lists(encoder.graph, encoder.popular)).one(0)
    parts = [head_of(encoder).to_json(), popular, encoder.groups.rule.tobytes()]
    values = np.frombuffer(b"".join(parts), np.uint8)
    writer.put(META, np.array([HEAD_KEY, POPULAR_KEY, GROUP_RULES_KEY]), values, np.cumsum([len(p) for p in parts]))


def put_bars(writer: KeyValueWriter, rows: BarRows) -> None:
    writer.put(BARS, rows.keys, rows.blobs.data, rows.blobs.ends)


def in_order(function: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """function(0), function(1), … computed by `threads` at a time, at most one result waiting for each."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[T]] = deque()
        for number in range(count):
            waiting.append(pool.submit(function, number))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def run(ctx: StageContext) -> StageResult:
    night = Night.open(ctx)
    encoder, inactive = night.encoder, BarRows.open(ctx.inputs["graph"].path)
    with LmdbWriter(ctx.data, ctx.settings.serving.partitions) as writer:
        write_head(writer, encoder)
        blocks = in_order(night.encode, len(night.blocks), ctx.settings.run.threads)
        for block, tables in zip(night.blocks, blocks, strict=True):
            keys = np.array(encoder.graph.ids[block.first : block.last])
            for table, blobs in tables.items():
                if table == BARS:
                    below, inactive = inactive.taken_below(int(keys[-1]))
                    put_bars(writer, below.merged(BarRows(keys, blobs)))
                else:
                    writer.put(table, keys, blobs.data, blobs.ends)
        put_bars(writer, inactive)
        content_hash = writer.finish()
    users = encoder.graph.users
    sizes = {table: size / max(users, 1) for table, size in writer.hash.size_bytes.items() if table != META}
    ctx.progress(f"{users:,} users, {sum(sizes.values()):,.0f} bytes each")
    metrics = {
        "bytes_per_user": {**sizes, "all": sum(sizes.values())},
        "popular": len(encoder.popular),
        "partitions": ctx.settings.serving.partitions,
    }
    return StageResult(users, content_hash, metrics)
