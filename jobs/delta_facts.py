"""What a lake says that the base release does not know yet: who joined and left, and every fact dated since.

Of users whom the base knows only facts dated within the window are new, and what came late between people: joins,
friendships, blocks and dismissals dated up to LATE_US before it, which the base has not seen where its graph was built
earlier. What came later still, with an older time, waits for the night. Of users who joined, all facts count, whatever
their time: a profile and a school are older than the account.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.schemas import AFFILIATIONS, BLOCKS, CONNECTIONS, DISMISSALS, INTERACTIONS, PROFILES, USER_EVENTS
from jobs.delta_rows import ALWAYS_US, LakeRows, Rows, Window
from jobs.graph_parts import rows_of_ids

DAY_US = 86_400_000_000
LATE_US = DAY_US
"""A day: what deltas on the night before knew is not lost where this night takes their place."""
OPPOSING = (("deactivated", "reactivated"), ("banned", "unbanned"), ("opted_out", "opted_in"))
FINAL = "erased"
PEOPLE = ("user_id", "other_id")

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairFacts:
    """Rows of a table of pairs, all of each pair in question. user, other, start_us, end_us int64 [n]."""

    user: Int64
    other: Int64
    start_us: Int64
    end_us: Int64

    @classmethod
    def of(cls, rows: Sequence[Rows]) -> "PairFacts":
        parts = [(one.ids("user_id"), one.ids("other_id"), one.start_us, one.end_us) for one in rows]
        none = np.zeros(0, np.int64)
        return cls(*(np.concatenate([none, *column]) for column in zip(*parts, strict=True)) if parts else (none,) * 4)

    def where(self, kept: Mask) -> "PairFacts":
        return PairFacts(self.user[kept], self.other[kept], self.start_us[kept], self.end_us[kept])


@dataclass(frozen=True)
class NewFacts:
    """joined, departed: ids, int64 ascending; everybody at the as-of is in `ids`.

    connections, blocks, dismissals: every fact, of any time, of each pair that has one within the window, or late, or
    names somebody who joined; `friends` and `kept_apart` int64 [n, 2] are those pairs. interactions, affiliations,
    profiles: facts of the window, and all of those who joined.

    inactive: ids of who left, and of inactive users who have a pair that changed within the window, or late.
    barred int64 [n, 2]: whom each of them must not be shown, ascending.
    """

    ids: Int64
    joined: Int64
    departed: Int64
    friends: Int64
    connections: PairFacts
    kept_apart: Int64
    blocks: PairFacts
    dismissals: PairFacts
    interactions: PairFacts
    profiles: pa.Table
    affiliations: pa.Table
    inactive: Int64
    barred: Int64


def find_new_facts(lake: LakeRows, known: Int64, erased: Int64, dismissal_days: int) -> NewFacts:
    """known: ids of the base's users, int64 ascending; erased: of whom nothing may be built."""
    first = _FirstLook(lake, dismissal_days)
    gone = np.union1d(inactive_users(first.events), erased)
    joined = np.setdiff1d(np.setdiff1d(first.mentioned, known), gone)
    departed = np.intersect1d(known, gone)
    ids = np.union1d(np.setdiff1d(known, departed), joined)
    never = np.union1d(erased, erased_users(first.events))
    paired = np.concatenate([first.friends.ravel(), first.kept_apart.ravel()])
    bars = _Bars(np.union1d(departed, np.setdiff1d(np.intersect1d(paired, gone), never)), never)
    connections, friends = _whole_pairs(lake, (CONNECTIONS.name,), ids, joined, first.friends, bars)
    (blocks, dismissals), apart = _both(lake, ids, joined, first.kept_apart, bars)
    return NewFacts(
        ids=ids,
        joined=joined,
        departed=departed,
        friends=friends,
        connections=connections[0],
        kept_apart=apart,
        blocks=blocks,
        dismissals=dismissals,
        interactions=PairFacts.of(list(_named(lake, INTERACTIONS.name, joined))),
        profiles=_table(lake, PROFILES.name, joined),
        affiliations=_table(lake, AFFILIATIONS.name, joined),
        inactive=bars.inactive,
        barred=bars.pairs(lake.window, dismissal_days),
    )


class _FirstLook:
    """What one reading of every table tells. mentioned: ids that a fact of the window names, or a late one. events: all
    there are. friends, kept_apart int64 [n, 2]: ids of the pairs of whom something began or ended then."""

    def __init__(self, lake: LakeRows, dismissal_days: int) -> None:
        mentioned: list[Int64] = [np.zeros(0, np.int64)]
        pairs: dict[str, list[Int64]] = {CONNECTIONS.name: [], BLOCKS.name: [], DISMISSALS.name: []}
        events: list[Rows] = []
        window = lake.window.widened(LATE_US)
        for name in lake.tables:
            for rows in lake.read(name):
                begun = window.holds(rows.start_us)
                new = rows.where(begun)
                mentioned += [np.unique(new.ids(key)) for key in PEOPLE if key in rows.batch.schema.names]
                if name == USER_EVENTS.name:
                    events.append(rows)
                if name in pairs:
                    changed = begun | window.holds(rows.end_us)
                    if name == DISMISSALS.name:
                        changed |= expired_within(window, rows.start_us, dismissal_days)
                    some = rows.where(changed)
                    pairs[name].append(np.stack([some.ids("user_id"), some.ids("other_id")], axis=1))
        none = np.zeros((0, 2), np.int64)
        self.mentioned = np.unique(np.concatenate(mentioned))
        self.events = events
        self.friends = np.concatenate([none, *pairs[CONNECTIONS.name]])
        self.kept_apart = np.concatenate([none, *pairs[BLOCKS.name], *pairs[DISMISSALS.name]])


class _Bars:
    """Whom inactive users must not be shown, by the rules of jobs.build_graph. inactive, erased: ids, ascending."""

    def __init__(self, inactive: Int64, erased: Int64) -> None:
        self.inactive = inactive
        self._erased = erased
        self._rows: dict[str, list[Rows]] = {}

    def take(self, table: str, rows: Rows) -> None:
        named = _isin(rows.ids("user_id"), self.inactive) | _isin(rows.ids("other_id"), self.inactive)
        self._rows.setdefault(table, []).append(rows.where(named))

    def pairs(self, window: Window, dismissal_days: int) -> Int64:
        """At the end of the window, int64 [n, 2], ascending."""
        found = [np.zeros((0, 2), np.int64)]
        for table, rows in self._rows.items():
            facts = PairFacts.of(rows)
            open_ = facts.end_us >= window.until_us
            if table == DISMISSALS.name:
                young = facts.start_us >= window.until_us - dismissal_days * DAY_US
                open_ &= (facts.start_us == ALWAYS_US) | young
            pairs = np.stack([facts.user[open_], facts.other[open_]], axis=1)
            found += [pairs] if table == DISMISSALS.name else [pairs, pairs[:, ::-1]]
        every = np.unique(np.concatenate(found), axis=0)
        stays = _isin(every[:, 0], self.inactive) & ~_isin(every, self._erased).any(axis=1)
        return every[stays]


def expired_within(window: Window, at_us: Int64, days: int) -> Mask:
    """Whether a dismissal of that time ran out within the window."""
    return window.earlier(days * DAY_US).holds(at_us)


def inactive_users(events: Sequence[Rows]) -> Int64:
    """Ids of all who must not appear, ascending, by the rule of jobs.transforms.users.inactive_users."""
    if not events:
        return np.zeros(0, np.int64)
    user = np.concatenate([rows.ids("user_id") for rows in events])
    at = np.concatenate([rows.start_us for rows in events])
    event = pa.chunked_array([rows.batch.column("event") for rows in events])

    def named(name: str) -> Mask:
        found: Mask = pc.equal(event, name).to_numpy()
        return found

    out = [user[named(FINAL)]]
    for shut, opened in OPPOSING:
        restricts = named(shut)
        chosen = np.flatnonzero(restricts | named(opened))
        order = chosen[np.lexsort((restricts[chosen], at[chosen], user[chosen]))]
        last = np.append(user[order][1:] != user[order][:-1], True) if len(order) else np.zeros(0, bool)
        out.append(user[order[last & restricts[order]]])
    return np.unique(np.concatenate(out))


def erased_users(events: Sequence[Rows]) -> Int64:
    """Ids of all who were erased by an event of the lake, ascending."""
    found = [rows.ids("user_id")[pc.equal(rows.batch.column("event"), FINAL).to_numpy(False)] for rows in events]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def _both(lake: LakeRows, ids: Int64, joined: Int64, pairs: Int64, bars: _Bars) -> tuple[list[PairFacts], Int64]:
    return _whole_pairs(lake, (BLOCKS.name, DISMISSALS.name), ids, joined, pairs, bars)


def _whole_pairs(
    lake: LakeRows, tables: Sequence[str], ids: Int64, joined: Int64, pairs: Int64, bars: _Bars
) -> tuple[list[PairFacts], Int64]:
    """All facts of some pairs, and of those with somebody who joined, a table each; and the rows of these pairs, the
    smaller first, int64 [n, 2]. Pairs with anybody who is not in `ids` are left out. bars: is told every row."""
    wanted = _keys(ids, pairs[:, 0], pairs[:, 1])
    wanted = np.unique(wanted[wanted >= 0])
    is_new = np.zeros(len(ids) + 1, bool)
    is_new[rows_of_ids(ids, joined)] = True
    found = []
    for name in tables:
        kept = []
        for rows in lake.read(name) if name in lake.tables else ():
            bars.take(name, rows)
            user, other = (rows_of_ids(ids, rows.ids(key)) for key in PEOPLE)
            both = (user >= 0) & (other >= 0)
            low, high = np.minimum(user, other), np.maximum(user, other)
            chosen = both & (is_new[user] | is_new[other] | _isin(low * len(ids) + high, wanted))
            kept.append(rows.where(chosen))
        found.append(PairFacts.of(kept))
    keys = [wanted, *(_keys(ids, facts.user, facts.other) for facts in found)]
    all_keys = np.unique(np.concatenate(keys))
    return found, np.stack(np.divmod(all_keys, max(len(ids), 1)), axis=1)


def _keys(ids: Int64, user: Int64, other: Int64) -> Int64:
    """A number for each pair whatever its order, -1 for one that is not of `ids`."""
    first, second = rows_of_ids(ids, user), rows_of_ids(ids, other)
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.where(low >= 0, low * len(ids) + high, -1)


def _isin(values: Int64, ascending: Int64) -> Mask:
    return rows_of_ids(ascending, values) >= 0


def _named(lake: LakeRows, table: str, joined: Int64) -> Iterator[Rows]:
    """Facts of the window, and all that name somebody who joined."""
    for rows in lake.read(table) if table in lake.tables else ():
        chosen = lake.window.holds(rows.start_us)
        for key in PEOPLE:
            if key in rows.batch.schema.names:
                chosen |= _isin(rows.ids(key), joined)
        yield rows.where(chosen)


def _table(lake: LakeRows, table: str, joined: Int64) -> pa.Table | None:
    batches = [rows.batch for rows in _named(lake, table, joined)]
    return pa.Table.from_batches(batches) if batches else None
