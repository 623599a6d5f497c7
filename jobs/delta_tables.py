"""Stage of a delta: serving rows of the users whom new facts touch, and a small index of who joined.

data/part-*.lmdb      serving tables with the rows of touched users, empty ones of users who left, and bars of these and
                      of other inactive users whom new facts touch
data/recent/          index of the users who joined, as index.sharded keeps one; only where somebody did
data/rankings/        what the touched users are shown, schema RANKINGS
data/quarantine.parquet

Cumulative: all of it is what changed since the base, whatever deltas came between.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from gnn.embed_some import embed_some
from gnn.runtime import prepare
from index.sharded import IDS, IndexSpec, ShardedIndex, build_shard, finish
from infra.blob_writer import Blobs
from infra.graph import Float32, Graph, Int32, Int64, open_array
from infra.hashing import ContentHash
from infra.kv import BARS, CANDIDATES, META, NEIGHBOURS, RANKINGS, USERS
from infra.lmdb_tables import LmdbWriter
from infra.serving_meta import CHANGED_KEY, DEPARTED_KEY, HEAD_KEY, INACTIVE_KEY, POPULAR_IDS_KEY, encode_ids
from jobs.blocks import hash_parts, part_path, write_part
from jobs.context import Parent, StageContext, StageResult
from jobs.delta_facts import find_new_facts
from jobs.delta_graph import Merged, merge
from jobs.delta_lists import ListMaker, Nearby
from jobs.delta_rows import LakeRows, Window
from jobs.features import FACTORS
from jobs.hourly import SHOWN
from jobs.inactive_bars import BarRows
from jobs.integrity import check_rankings
from jobs.newcomer_towers import TOWERS
from jobs.rank import PRICES
from jobs.reason_rows import ReasonNames
from jobs.release_load import ROWS_HASH
from jobs.serving_tables import Encoder, head_of, in_order, put_bars
from lookup_api.ranking.capped_groups import CappedGroups
from lookup_api.ranking.factors import refit
from lookup_api.ranking.popular import most_connected
from lookup_api.ranking.rules import caps_of
from lookup_api.ranking.scoring import RankingModel

BLOCK = 512
"""Users whose lists are made at a time."""
RECENT = "recent"
EMPTIED = (RANKINGS, CANDIDATES, USERS, NEIGHBOURS)
"""Tables whose rows of who left are empty."""


def run(ctx: StageContext) -> StageResult:
    """inputs: the artifacts of the base release. Raises InputError for a lake with too many bad rows."""
    prepare(ctx.settings.run.threads, ctx.settings.run.seed)
    base = Base.open(ctx.inputs)
    merged, lake, bars = _merged(ctx, base)
    maker, encoder = _maker(ctx, base, merged)
    ctx.progress(f"delta: the network of {merged.graph.users:,} users is ready")
    shown = ctx.data / SHOWN
    shown.mkdir()
    with LmdbWriter(ctx.data, ctx.settings.serving.partitions) as writer:
        gone = np.asarray(base.graph.ids)[merged.row_of_base < 0]
        _write_meta(writer, encoder, base, merged, gone, bars.keys)
        _write_rows(writer, maker, encoder, merged.touched, gone, bars, shown, ctx.settings.run.threads)
        tables = writer.finish()
    faults = check_rankings(merged.graph, shown, merged.touched)["faults"]
    pq.write_table(lake.quarantine, ctx.data / "quarantine.parquet")
    parts = hash_parts(shown)
    digest = ContentHash().text("tables", tables).text(SHOWN, parts.hexdigest())
    digest.text(RECENT, _save_recent(ctx, merged, maker.vectors))
    metrics = {
        **merged.changed,
        ROWS_HASH: tables,
        "faults": faults,
        "quarantined": _bad(lake),
    }
    return StageResult(len(merged.touched), digest.hexdigest(), metrics)


@dataclass(frozen=True)
class Base:
    """What is read of the base release. popular int64: ids of its popular list, whose places serving rows name."""

    as_of: datetime
    inputs: Mapping[str, Parent]
    graph: Graph
    popular: Int64

    @classmethod
    def open(cls, inputs: Mapping[str, Parent]) -> "Base":
        graph = Graph.open(inputs["graph"].path)
        length = inputs["serving_tables"].manifest["settings"]["serving"]["popular"]
        listed = most_connected(graph.now.connections)[:length]
        as_of = datetime.fromisoformat(inputs["graph"].manifest["as_of"])
        return cls(as_of, inputs, graph, np.asarray(graph.ids)[listed])

    def path(self, kind: str) -> Path:
        return self.inputs[kind].path


def _merged(ctx: StageContext, base: Base) -> tuple[Merged, LakeRows, BarRows]:
    window = Window.between(base.as_of, ctx.as_of)
    lake = LakeRows(ctx.lake, window, ctx.erased)
    erased, rules = np.array(ctx.erased, np.int64), ctx.settings.graph
    facts = find_new_facts(lake, np.asarray(base.graph.ids), erased, rules.dismissal_days)
    lake.refuse_bad(rules.max_bad_share)
    names = tuple(lake.attributes)
    merged = merge(base.graph, base.path("graph"), facts, names, window.until_us, ctx.settings)
    found = merged.changed
    ctx.progress(
        f"delta: {found['joined']:,} joined, {found['departed']:,} left, {found['touched']:,} users are touched; "
        "what came more than a day late waits for the night"
    )
    return merged, lake, BarRows.of(facts.barred[:, 0], facts.barred[:, 1], facts.inactive)


def _maker(ctx: StageContext, base: Base, merged: Merged) -> tuple[ListMaker, Encoder]:
    graph, settings = merged.graph, ctx.settings
    vectors = _carried(open_array(base.path("embeddings") / "now.npy"), merged)
    if len(merged.joined):
        joined = merged.joined
        vectors[joined] = embed_some(base.path("encoder"), graph, graph.now, joined, merged.base_row)
    price = _carried(open_array(base.path("rankings") / PRICES), merged)
    index = ShardedIndex.open(base.path("index") / "now", settings.run.threads)
    search = Nearby(index, merged.row_of_base, merged.joined, vectors, settings.candidates.ann)
    towers = base.path("features") / "now" / TOWERS
    maker = ListMaker.of(
        graph=graph,
        search=search if settings.candidates.ann else None,
        vectors=vectors,
        factors=_factors(base, merged),
        towers=np.stack([_carried(part, merged) for part in open_array(towers)]) if towers.exists() else None,
        model=RankingModel.open(base.path("ranker")),
        price=price,
        names=ReasonNames.open(base.path("graph"), graph),
        settings=settings,
    )
    encoder = Encoder(
        graph=graph,
        groups=CappedGroups.of(graph, settings.rules),
        known=np.concatenate([maker.scorer.user_features, price[:, None]], axis=1),
        embeddings=vectors,
        popular=graph.rows_of(base.popular).astype(np.int32),
        settings=settings.serving,
        caps=caps_of(settings.rules),
    )
    return maker, encoder


def _carried(rows: npt.NDArray[Any], merged: Merged) -> Float32:
    """Rows of the base's users as they are now; zero for who joined."""
    out = np.zeros((merged.graph.users, *rows.shape[1:]), np.float32)
    stays = merged.row_of_base >= 0
    out[merged.row_of_base[stays]] = rows[stays]
    return out


def _factors(base: Base, merged: Merged) -> Float32:
    """Friendship factors float32 [2, N, K]: those of the night, and anew of whom new facts touch."""
    factors = np.stack([_carried(part, merged) for part in open_array(base.path("features") / "now" / FACTORS)])
    refit(factors[0], factors[1], merged.graph.now.connections, merged.touched.astype(np.int64))
    return factors


def _write_meta(writer: LmdbWriter, encoder: Encoder, base: Base, merged: Merged, gone: Int64, inactive: Int64) -> None:
    changed = np.union1d(np.asarray(merged.graph.ids)[merged.touched], gone)
    keys = np.array([HEAD_KEY, CHANGED_KEY, DEPARTED_KEY, POPULAR_IDS_KEY, INACTIVE_KEY])
    parts = [head_of(encoder).to_json(), *(encode_ids(ids) for ids in (changed, gone, base.popular, inactive))]
    writer.put(META, keys, np.frombuffer(b"".join(parts), np.uint8), np.cumsum([len(part) for part in parts]))


def _write_rows(
    writer: LmdbWriter,
    maker: ListMaker,
    encoder: Encoder,
    touched: Int32,
    gone: Int64,
    bars: BarRows,
    shown: Path,
    threads: int,
) -> None:
    """Rows of the touched users, block by block, and empty ones of those who are gone, but for their bars."""
    ids = np.asarray(maker.graph.ids)

    def make(number: int) -> dict[str, Blobs]:
        users = touched[number * BLOCK : (number + 1) * BLOCK]
        lists = maker.lists(users)
        write_part(lists.rankings, part_path(shown, number))
        return encoder.encode(users, lists.pairs, lists.scores, lists.rankings)

    count = -(-len(touched) // BLOCK)
    for number, tables in enumerate(in_order(make, count, threads)):
        keys = ids[touched[number * BLOCK : (number + 1) * BLOCK]]
        before, gone = gone[gone < keys[-1]], gone[gone > keys[-1]]
        below, bars = bars.taken_below(int(keys[-1]))
        for table, blobs in tables.items():
            if table == BARS:
                put_bars(writer, below.merged(BarRows(keys, blobs)))
            else:
                writer.put(table, *_with_empty(keys, blobs, before))
    for table in EMPTIED:
        writer.put(table, gone, np.zeros(0, np.uint8), np.zeros(len(gone), np.int64))
    put_bars(writer, bars)


def _with_empty(keys: Int64, blobs: Blobs, empty: Int64) -> tuple[Int64, npt.NDArray[np.uint8], Int64]:
    """Keys, values and ends of a table with empty values for more keys."""
    at = np.searchsorted(keys, empty)
    lengths = np.insert(np.diff(blobs.ends, prepend=np.int64(0)), at, 0)
    return np.insert(keys, at, empty), blobs.data, np.cumsum(lengths)


def _save_recent(ctx: StageContext, merged: Merged, vectors: Float32) -> str:
    """Writes the index of who joined; returns its hash."""
    joined = merged.joined
    if not len(joined):
        return ""
    folder, spec = ctx.data / RECENT, IndexSpec("exact", {}, 1, ctx.settings.run.seed)
    folder.mkdir()
    build_shard(vectors[joined], spec, 0, folder)
    ids = np.asarray(merged.graph.ids)[joined]
    np.save(folder / IDS, ids)
    return ContentHash().array("ids", ids).text("index", finish(folder, spec)).hexdigest()


def _bad(lake: LakeRows) -> dict[str, dict[str, int]]:
    return {name: judged.bad for name, judged in lake.judged.items() if judged.bad}
