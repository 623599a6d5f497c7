"""The base's `now` view with the facts that came since: rows ranked anew, linear in the entries of the graph.

Attribute values and entities keep the codes of the base, by which its encoder and its serving tables know them; what
the base has never seen waits for the night. The past view stays empty: nothing is learnt by the hour.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.graph import NO_DAY, Csr, Graph, Int32, Int64, View
from infra.settings import Settings
from jobs.delta_facts import DAY_US, NewFacts, PairFacts
from jobs.delta_rows import ALWAYS_US
from jobs.graph_parts import rows_of_ids, split_users
from jobs.past_view import rows_of_entries

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Merged:
    """graph: of everybody at the as-of. row_of_base int64 [users of the base]: their row, -1 of who left; base_row
    int64 [N]: the reverse, -1 of who joined. touched int32: rows whose lists are made anew, ascending: who joined, both
    ends of friendships that began or ended, who is kept from whom anew, whose profile or affiliations changed.

    changed: what was merged, by name; waiting: values and affiliations that the base has not seen.
    """

    graph: Graph
    row_of_base: Int64
    base_row: Int64
    touched: Int32
    changed: dict[str, int]

    @property
    def joined(self) -> Int64:
        """Rows of who joined, ascending."""
        return np.flatnonzero(self.base_row < 0)


def merge(
    base: Graph, folder: Path, facts: NewFacts, names: tuple[str, ...], as_of_us: int, settings: Settings
) -> Merged:
    """folder: of the base's graph artifact. names: attributes of the lake, the i-th in column attribute_<i>."""
    ids = facts.ids
    row_of_base = rows_of_ids(ids, np.asarray(base.ids))
    base_row = rows_of_ids(np.asarray(base.ids), ids)
    merger = _Merger(len(ids), row_of_base)
    friends, met, friendships = _friends(merger, base, facts, as_of_us)
    excluded, parted = _excluded(merger, base, facts, as_of_us, settings.graph.dismissal_days)
    codes, joined_day, profiled, unknown_values = _profiles(base, folder, facts, names, row_of_base)
    affiliations, placed, unknown_entities = _affiliations(merger, base, folder, facts)
    interactions = merger.added(base.now.interactions, *_counted(ids, facts.interactions))
    touched = np.unique(np.concatenate([np.flatnonzero(base_row < 0), met, parted, profiled, placed]))
    nothing = View(*(Csr.empty(len(ids), kind) for kind in (np.int32, np.float32, np.float32)))
    graph = replace(
        base,
        ids=ids,
        split=split_users(ids, settings.graph, settings.run.seed),
        joined_day=joined_day,
        attribute_codes=codes,
        held_out=np.zeros((0, 2), np.int32),
        held_out_day=np.zeros(0, np.int32),
        excluded=excluded,
        past=nothing,
        now=View(friends, affiliations, interactions),
        as_of_day=as_of_us // DAY_US,
    )
    changed = {
        "joined": len(facts.joined),
        "departed": len(facts.departed),
        "friendships": friendships,
        "touched": len(touched),
        "waiting": unknown_values + unknown_entities,
    }
    return Merged(graph, row_of_base, base_row, touched.astype(np.int32), changed)


@dataclass(frozen=True)
class _Merger:
    """Puts changed entries into sparse rows of the base. users: N; row_of_base int64: -1 of who left."""

    users: int
    row_of_base: Int64

    def replaced(
        self, base: Csr, gone: Int64, keys: Int64, values: npt.NDArray[Any] | None, width: int = 0
    ) -> tuple[Csr, Int64]:
        """The base's entries without those of `gone`, and with `keys`; and the keys whose entries differ from before.

        Keys are row * width + column, ascending, of `gone` and beside it distinct; width: columns of rows that are no
        people, whose numbers stay; 0 for people.
        """
        across = width or self.users
        old, kept_values = self.entries(base, width)
        at = rows_of_ids(old, gone)
        stays = np.ones(len(old), bool)
        stays[at[at >= 0]] = False
        left, left_values = old[stays], None if kept_values is None else kept_values[stays]
        at = np.searchsorted(left, keys)
        every = np.insert(left, at, keys)
        every_values = None if left_values is None or values is None else np.insert(left_values, at, values)
        indptr = np.zeros(self.users + 1, np.int64)
        np.cumsum(np.bincount(every // max(across, 1), minlength=self.users), out=indptr[1:])
        csr = Csr(indptr, (every % max(across, 1)).astype(np.int32), every_values)
        return csr, np.setxor1d(old[~stays], keys, assume_unique=True)

    def added(self, base: Csr, keys: Int64, values: npt.NDArray[np.float32], width: int = 0) -> Csr:
        """The base's entries with more on top. keys: ascending and distinct."""
        old, old_values = self.entries(base, width)
        assert old_values is not None
        at = rows_of_ids(old, keys)
        before = np.where(at >= 0, old_values[at] if len(old) else 0, 0)
        return self.replaced(base, keys, keys, (before + values).astype(np.float32), width)[0]

    def entries(self, base: Csr, width: int = 0) -> tuple[Int64, npt.NDArray[Any] | None]:
        """Keys of the base's entries between people who are still there, ascending, and their values."""
        row = self.row_of_base[rows_of_entries(base)]
        column = np.asarray(base.indices, np.int64) if width else self.row_of_base[base.indices]
        stays = (row >= 0) & (column >= 0)
        keys = row[stays] * (width or self.users) + column[stays]
        return keys, None if base.values is None else np.asarray(base.values)[stays]


def _friends(merger: _Merger, base: Graph, facts: NewFacts, as_of_us: int) -> tuple[Csr, Int64, int]:
    """Friendships at the as-of, rows of those who have other ones than before, and how many began or ended."""
    low, high = facts.friends.T
    open_ = facts.connections.where(facts.connections.end_us >= as_of_us)
    user, other = rows_of_ids(facts.ids, open_.user), rows_of_ids(facts.ids, open_.other)
    day = np.where(open_.start_us == ALWAYS_US, NO_DAY, open_.start_us // DAY_US).astype(np.int32)
    both = np.concatenate([user * merger.users + other, other * merger.users + user])
    keys, at = np.unique(both, return_inverse=True)
    days = np.full(len(keys), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(days, at, np.concatenate([day, day]))
    gone = np.unique(np.concatenate([low * merger.users + high, high * merger.users + low]))
    friends, differing = merger.replaced(base.now.connections, gone, keys, days)
    return friends, np.unique(differing // max(merger.users, 1)), len(differing) // 2


def _excluded(merger: _Merger, base: Graph, facts: NewFacts, as_of_us: int, days: int) -> tuple[Csr, Int64]:
    """Who must not be shown to whom at the as-of, and rows of those for whom that is not as before."""
    n = merger.users
    low, high = facts.kept_apart.T
    blocks = facts.blocks.where(facts.blocks.end_us >= as_of_us)
    kept = facts.dismissals
    young = (kept.start_us == ALWAYS_US) | (kept.start_us >= as_of_us - days * DAY_US)
    dismissals = kept.where((kept.end_us >= as_of_us) & young)
    (a, b), (c, d) = (_rows(facts.ids, one) for one in (blocks, dismissals))
    keys = np.unique(np.concatenate([a * n + b, b * n + a, c * n + d]))
    gone = np.unique(np.concatenate([low * n + high, high * n + low]))
    excluded, differing = merger.replaced(base.excluded, gone, keys, None)
    return excluded, np.unique(differing // max(n, 1))


def _rows(ids: Int64, pairs: PairFacts) -> tuple[Int64, Int64]:
    return rows_of_ids(ids, pairs.user), rows_of_ids(ids, pairs.other)


def _counted(ids: Int64, acts: PairFacts) -> tuple[Int64, npt.NDArray[np.float32]]:
    """Who acted on whom, as keys, and how often."""
    user, other = _rows(ids, acts)
    known = (user >= 0) & (other >= 0)
    keys, counts = np.unique(user[known] * len(ids) + other[known], return_counts=True)
    return keys, counts.astype(np.float32)


def _profiles(
    base: Graph, folder: Path, facts: NewFacts, names: tuple[str, ...], row_of_base: Int64
) -> tuple[Int32, Int32, Int64, int]:
    """Codes int32 [A, N] and days of joining int32 [N]; rows of whom a profile came, and values without a code."""
    stays = row_of_base >= 0
    codes = np.full((len(base.attributes), len(facts.ids)), -1, np.int32)
    codes[:, row_of_base[stays]] = np.asarray(base.attribute_codes)[:, stays]
    joined_day = np.full(len(facts.ids), NO_DAY, np.int32)
    joined_day[row_of_base[stays]] = np.asarray(base.joined_day)[stays]
    latest = _latest(facts.profiles, facts.ids)
    if latest is None:
        return codes, joined_day, np.zeros(0, np.int64), 0
    row = rows_of_ids(facts.ids, latest["user_id"].to_numpy())
    us = latest["joined_at"].cast(pa.int64()).fill_null(ALWAYS_US).to_numpy()
    joined_day[row] = np.where(us == ALWAYS_US, NO_DAY, us // DAY_US)
    known = pq.read_table(folder / "attribute_values.parquet")
    unknown = 0
    for place, name in enumerate(base.attributes):
        if name not in names:
            codes[place, row] = -1
            continue
        values = latest[f"attribute_{names.index(name)}"].cast(pa.string())
        own = known.filter(pc.equal(known["attribute"], name))["value"]
        found = pc.index_in(values, own.combine_chunks(), skip_nulls=True)
        codes[place, row] = found.fill_null(-1).to_numpy()
        unknown += found.null_count - values.null_count
    return codes, joined_day, row, unknown


def _latest(profiles: pa.Table | None, ids: Int64) -> pa.Table | None:
    """One row a user: the one with the latest joined_at, of several such the greatest in the order of its columns."""
    if profiles is None:
        return None
    mine = profiles.filter(pa.array(rows_of_ids(ids, profiles["user_id"].to_numpy()) >= 0))
    if not mine.num_rows:
        return None
    attributes = [name for name in mine.schema.names if name.startswith("attribute_")]
    order = [(name, "ascending", "at_start") for name in ("user_id", "joined_at", *attributes)]
    ordered = mine.take(pc.sort_indices(mine, order))
    user = ordered["user_id"].to_numpy()
    return ordered.filter(pa.array(np.append(user[1:] != user[:-1], True)))


def _affiliations(merger: _Merger, base: Graph, folder: Path, facts: NewFacts) -> tuple[Csr, Int64, int]:
    """Times of every user at every entity, rows of whom there are new ones, and facts of entities without a code."""
    seen, entities = facts.affiliations, len(base.entity_kind)
    if seen is None or not entities:
        none = np.zeros(0, np.int64)
        return merger.added(base.now.affiliations, none, np.zeros(0, np.float32), max(entities, 1)), none, 0
    row = rows_of_ids(facts.ids, seen["user_id"].to_numpy())
    known = pq.read_table(folder / "entities.parquet", columns=["kind", "entity_id"])
    found = pc.index_in(_named(seen), _named(known).combine_chunks())
    entity = found.fill_null(-1).to_numpy()
    times = seen["times"].fill_null(1).to_numpy().astype(np.float64)
    counted = (row >= 0) & (entity >= 0)
    keys, at = np.unique(row[counted] * entities + entity[counted], return_inverse=True)
    total = np.bincount(at, times[counted], len(keys)).astype(np.float32)
    merged = merger.added(base.now.affiliations, keys, total, entities)
    return merged, np.unique(row[counted]), int(((row >= 0) & (entity < 0)).sum())


def _named(table: pa.Table) -> pa.ChunkedArray:
    """Kind and id of each entity as one text: a kind holds no NUL."""
    return pc.binary_join_element_wise(table["kind"].cast(pa.string()), table["entity_id"].cast(pa.string()), "\0")
