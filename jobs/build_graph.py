"""Lake tables to two views of one graph.

Spark reads, judges, dates and merges the rows; numpy puts the arrays together. Rows that break a rule go to
data/quarantine.parquet with a reason each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from infra.errors import UsageError
from infra.graph import Csr, Graph, Int64, View
from infra.hashing import ContentHash, hash_arrays, hash_tables
from infra.lake import open_lake
from infra.schemas import (
    AFFILIATIONS,
    BLOCKS,
    CONNECTIONS,
    DISMISSALS,
    INTERACTIONS,
    LAKE_TABLES,
    PROFILES,
    USER_EVENTS,
    LakeTable,
)  # fmt: skip
from infra.settings import RulesSettings, Settings
from infra.times import days_before
from jobs.context import StageContext, StageResult
from jobs.graph_parts import Affiliations, Attributes, code_affiliations, code_attributes, csr_of_blocks, split_users
from jobs.inactive_bars import FILE, INACTIVE_BARS, table_of
from jobs.lake_facts import Facts, quarantine
from jobs.past_view import canonical_pairs, choose_cutoff, held_out_entries, keep_entries
from jobs.spark import collect
from jobs.transforms.affiliations import affiliation_times
from jobs.transforms.facts import day_of
from jobs.transforms.pairs import Blocks, block_pairs, pairs_of
from jobs.transforms.users import FINAL, inactive_users, latest_profiles, mentioned_users, users

ENTRIES_A_BLOCK = 4_000_000
"""Entries of one block of rows, on average, at most: what a worker sorts in memory."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTERACTED, INTERACTED_EARLY, EXCLUDED = range(3)
FRIENDS = 0


def run(ctx: StageContext) -> StageResult:
    """Builds the graph artifact: infra.graph.Graph, and beside it attribute_values, entities, inactive_bars and
    quarantine as Parquet."""
    shares = ctx.settings.graph.report_share + ctx.settings.graph.validate_share
    if shares >= 1:
        raise UsageError(
            f"graph.report_share + graph.validate_share: {shares:g} leaves no user to learn from",
            "Lower one of them: their sum must be below 1.",
        )
    for warning in folder_warnings(open_lake(ctx.lake).ignored):
        ctx.progress(f"build_graph: warning: {warning}")
    facts = Facts.read(ctx.spark(), ctx.lake, ctx.as_of, ctx.erased)
    try:
        bad, bad_counts = quarantine(facts, ctx.settings.graph.max_bad_share)
        ctx.progress(f"build_graph: {sum(of.rows for of in facts.files.values()):,} rows read, {bad.num_rows:,} bad")
        built = build(facts, ctx.settings)
    finally:
        facts.forget()
    for warning in rule_warnings(ctx.settings.rules, (*built.graph.attributes, *built.graph.kinds)):
        ctx.progress(f"build_graph: warning: {warning}")
    tables = {
        "attribute_values": built.attributes.values,
        "entities": built.affiliations.entities,
        Path(FILE).stem: built.inactive_bars,
        "quarantine": bad,
    }
    built.graph.save(ctx.data)
    for name, table in tables.items():
        pq.write_table(table, ctx.data / f"{name}.parquet")
    rows = {name: of.rows for name, of in facts.files.items() if of.rows}
    metrics = built.metrics | {"quarantined": bad_counts, "lake_rows": rows}
    return StageResult(built.graph.users, content_hash(built.graph, tables), metrics)


def folder_warnings(ignored: Sequence[str]) -> Iterator[str]:
    """Of folders of the lake that are no tables: a table under another name would silently be missing."""
    if ignored:
        yield f"ignored, not a table: {', '.join(ignored)}; the tables are called {', '.join(LAKE_TABLES)}"


def rule_warnings(rules: RulesSettings, known: Sequence[str]) -> Iterator[str]:
    """Of names in the rules that somebody chose and the graph does not have; known: its attributes and kinds."""
    for key in ("company_attributes", "school_attributes"):
        names = getattr(rules, key)
        missing = [name for name in names if name not in known] if names != getattr(RulesSettings(), key) else []
        if missing:
            there = ", ".join(known) or "none"
            yield f"rules.{key}: no attribute or kind is called {', '.join(missing)}; there are {there}"


@dataclass(frozen=True)
class Built:
    graph: Graph
    attributes: Attributes
    affiliations: Affiliations
    inactive_bars: pa.Table
    metrics: dict[str, Any]


def build(facts: Facts, settings: Settings) -> Built:
    """The graph of the good rows before the as-of."""
    ids, inactive = find_users(facts)
    blocks = _blocks(facts, len(ids), settings)
    friends = find_friends(facts, ids, blocks)
    share = settings.graph.held_out_share
    _, days = canonical_pairs(friends)
    cutoff = choose_cutoff(days, share)
    held = held_out_entries(friends, ids, cutoff, share, settings.run.seed)
    held_out, held_out_day = canonical_pairs(friends, held)
    interactions, early, excluded = find_directed(facts, ids, blocks, cutoff, settings.graph.dismissal_days)
    affiliations = find_affiliations(facts, ids, cutoff)
    attributes = find_attributes(facts, ids)
    graph = Graph(
        ids=ids,
        split=split_users(ids, settings.graph, settings.run.seed),
        joined_day=attributes.joined_day,
        attributes=attributes.names,
        cardinalities=attributes.cardinalities,
        attribute_codes=attributes.codes,
        kinds=affiliations.kinds,
        entity_kind=affiliations.entity_kind,
        held_out=held_out,
        held_out_day=held_out_day,
        excluded=excluded,
        past=View(keep_entries(friends, ~held), affiliations.past, early),
        now=View(friends, affiliations.now, interactions),
        hold_out="random" if cutoff is None else "time",
        as_of_day=(facts.as_of - EPOCH).days,
        cutoff_day=cutoff,
    )
    apart = [*_friend_pairs(facts), *_kept_apart(facts, settings.graph.dismissal_days)]
    inactive_bars = find_inactive_bars(facts, inactive, apart)
    return Built(graph, attributes, affiliations, inactive_bars, _metrics(graph, len(inactive)))


def find_users(facts: Facts) -> tuple[Int64, Int64]:
    """Ids of the active users and of the inactive ones, who are left out; int64, ascending."""
    if not facts.judged:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    seen = [facts.visible(of.table) for of in facts.files.values() if facts.has(of.table)]
    mentioned = mentioned_users(seen)
    events = facts.visible(USER_EVENTS) if facts.has(USER_EVENTS) else None
    inactive = inactive_users(events) if events is not None else mentioned.limit(0)
    found = collect(users(mentioned, inactive))
    ids, active = found["user_id"].to_numpy(), found["active"].to_numpy()
    return np.sort(ids[active]), np.sort(ids[~active])


def _blocks(facts: Facts, users: int, settings: Settings) -> Blocks:
    """As many blocks of rows as shuffle partitions, and more where they would not fit a worker."""
    entries = 2 * max((of.rows for of in facts.files.values() if "other_id" in of.table.schema.names), default=0)
    return Blocks(users, max(settings.spark.partitions, -(-entries // ENTRIES_A_BLOCK)))


def find_friends(facts: Facts, ids: Int64, blocks: Blocks) -> Csr:
    """Friendships open at the as-of, symmetric, N rows; values: the first day of the earliest open interval."""
    found = _friend_pairs(facts)
    if not found:
        return Csr.empty(blocks.users, np.int32)
    return csr_of_blocks(collect(block_pairs(found[0], ids, blocks)), FRIENDS, blocks, "days")


def _friend_pairs(facts: Facts) -> list[DataFrame]:
    return [_layer(facts.open(CONNECTIONS), CONNECTIONS, FRIENDS, both=True)] if facts.has(CONNECTIONS) else []


def find_directed(
    facts: Facts, ids: Int64, blocks: Blocks, cutoff: int | None, dismissal_days: int
) -> tuple[Csr, Csr, Csr]:
    """Interactions (values: how often, float32) of now and of past, and exclusions; N rows each.

    Without a cutoff past has no interactions: nothing tells which of them came before the friendship that is held out,
    and the later ones would give it away.
    """
    layers = []
    if facts.has(INTERACTIONS):
        interactions = facts.visible(INTERACTIONS)
        layers.append(_layer(interactions, INTERACTIONS, INTERACTED))
        if cutoff is not None:
            layers.append(_layer(interactions.filter(day_of("at") < cutoff), INTERACTIONS, INTERACTED_EARLY))
    layers += _kept_apart(facts, dismissal_days)
    if not layers:
        return Csr.empty(blocks.users, np.float32), Csr.empty(blocks.users, np.float32), Csr.empty(blocks.users)
    merged = collect(block_pairs(reduce(DataFrame.unionAll, layers), ids, blocks))
    now, early = (_as_float(csr_of_blocks(merged, layer, blocks, "counts")) for layer in (INTERACTED, INTERACTED_EARLY))
    return now, early, csr_of_blocks(merged, EXCLUDED, blocks, None)


def _kept_apart(facts: Facts, dismissal_days: int) -> list[DataFrame]:
    """Blocks and dismissals that hold."""
    layers = []
    if facts.has(BLOCKS):
        layers.append(_layer(facts.open(BLOCKS), BLOCKS, EXCLUDED, both=True))
    if facts.has(DISMISSALS):
        expired = F.col("at") < F.lit(days_before(facts.as_of, dismissal_days))
        young = facts.open(DISMISSALS).filter(F.col("at").isNull() | ~expired)
        layers.append(_layer(young, DISMISSALS, EXCLUDED))
    return layers


def find_inactive_bars(facts: Facts, inactive: Int64, kept_apart: Sequence[DataFrame]) -> pa.Table:
    """Whom the inactive users, ids int64 ascending, must not be shown: schema INACTIVE_BARS, ascending.

    kept_apart: rows as block_pairs takes them. Of who was erased nothing is kept, and nobody is kept from them.
    """
    if not len(inactive) or not kept_apart:
        return INACTIVE_BARS.empty_table()
    events = facts.visible(USER_EVENTS).filter(F.col("event") == FINAL)
    erased = collect(events.select("user_id").distinct())["user_id"].to_numpy()
    found = collect(pairs_of(reduce(DataFrame.unionAll, kept_apart), np.setdiff1d(inactive, erased)))
    user, other = (found[name].to_numpy() for name in INACTIVE_BARS.names)
    return table_of(user, other, erased)


def _layer(rows: DataFrame, table: LakeTable, layer: int, both: bool = False) -> DataFrame:
    """Rows of a table of pairs as block_pairs takes them."""
    day: Column = day_of(table.start or "")
    return rows.select(F.lit(layer).alias("layer"), "user_id", "other_id", day.alias("day"), F.lit(both).alias("both"))


def _as_float(csr: Csr) -> Csr:
    return Csr(csr.indptr, csr.indices, np.asarray(csr.values).astype(np.float32))


def find_affiliations(facts: Facts, ids: Int64, cutoff: int | None) -> Affiliations:
    if not facts.has(AFFILIATIONS):
        return Affiliations.none(len(ids))
    return code_affiliations(collect(affiliation_times(facts.visible(AFFILIATIONS), cutoff)), ids)


def find_attributes(facts: Facts, ids: Int64) -> Attributes:
    names = tuple(facts.files[PROFILES.name].attributes)
    if not facts.has(PROFILES):
        return Attributes.none(len(ids))
    return code_attributes(collect(latest_profiles(facts.visible(PROFILES))), names, ids)


def content_hash(graph: Graph, tables: dict[str, pa.Table]) -> str:
    """Of the arrays, the names that give them meaning and the tables beside them."""
    names = {"attributes": graph.attributes, "kinds": graph.kinds, "hold_out": graph.hold_out, "as_of": graph.as_of_day}
    digest = ContentHash().json("names", names | {"cutoff_day": graph.cutoff_day})
    digest.text("arrays", hash_arrays(graph.arrays()))
    for name, table in sorted(tables.items()):
        digest.text(name, hash_tables([table]))
    return digest.hexdigest()


def _metrics(graph: Graph, dropped: int) -> dict[str, Any]:
    return {
        "users": graph.users,
        "users_dropped_inactive": dropped,
        "friendships_now": graph.now.connections.entries // 2,
        "friendships_past": graph.past.connections.entries // 2,
        "friendships_held_out": len(graph.held_out),
        "hold_out": graph.hold_out,
        "cutoff": None if graph.cutoff_day is None else (EPOCH + timedelta(days=graph.cutoff_day)).date().isoformat(),
        "attributes": len(graph.attributes),
        "entities": len(graph.entity_kind),
        "affiliations": graph.now.affiliations.entries,
        "interactions": graph.now.interactions.entries,
        "excluded": graph.excluded.entries,
    }
