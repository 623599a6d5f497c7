"""What the lake records about a sample network besides its friendships, as Arrow tables of infra.schemas.

Times inside are float64 shares of the network's life, [0, 1); `Clock` turns them into UTC microseconds before the end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.schemas import LAKE_TABLES
from jobs.sampling.friendships import Friendships
from jobs.sampling.people import NONE, People

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]

AGE_BANDS = (18, 25, 35, 45, 55)
GENDERS = ("female", "male", "other")
INTERACTION_KINDS = ("message", "profile_view", "invite_sent")
OUTCOMES = ("shown", "clicked", "invited", "accepted")
DAY = 86_400_000_000


@dataclass(frozen=True)
class Clock:
    """Life of the network: it begins `span_us` before `end_us` (microseconds since 1970, UTC)."""

    end_us: int
    span_us: int

    def at(self, share: Float64) -> pa.Array:
        """Microseconds of each share, before the end; NaN becomes null."""
        missing = np.isnan(share)
        since = (np.where(missing, 0, share) * self.span_us).astype(np.int64)
        since = np.minimum(since, self.span_us - 1)
        return pa.array(self.end_us - self.span_us + since, mask=missing).cast(pa.timestamp("us", tz="UTC"))

    def days(self, days: float) -> float:
        """So many days as a share of the network's life."""
        return days * DAY / self.span_us


@dataclass(frozen=True)
class Network:
    """Everything the facts are drawn from."""

    people: People
    friendships: Friendships
    clock: Clock


def connections(net: Network, rng: np.random.Generator) -> pa.Table:
    """Every friendship once, from who asked to who accepted; about 2 % ended."""
    f = net.friendships
    ended = np.where(rng.random(f.count) < 0.02, _later(rng, f.at), np.nan)
    return _table(net, "connections", user_id=f.user, other_id=f.other, connected_at=f.at, disconnected_at=ended)


def profiles(net: Network, rng: np.random.Generator) -> pa.Table:
    """One row a person (about 1 % have none) with attributes, some of them missing."""
    p = net.people
    end_year = 1970 + net.clock.end_us // DAY // 365.2425
    band = np.searchsorted(AGE_BANDS, end_year - p.birth_year, side="right") - 1
    band = np.where(rng.random(p.count) < 0.15, NONE, band)
    gender = rng.choice(len(GENDERS), p.count, p=(0.49, 0.48, 0.03))
    gender = np.where(rng.random(p.count) < 0.1, NONE, gender)
    city = np.where(rng.random(p.count) < 0.05, NONE, p.city)
    table = _table(net, "profiles", user_id=np.arange(p.count), joined_at=p.joined)
    table = table.append_column("city", _named(city, place_names(int(p.city.max(initial=0)) + 1)))
    table = table.append_column("gender", _named(gender, GENDERS))
    table = table.append_column("age_band", _named(band, [f"{age}+" for age in AGE_BANDS]))
    table = table.append_column("university_year", _year(p, rng))
    return table.filter(pa.array(rng.random(p.count) >= 0.01))


def affiliations(net: Network, rng: np.random.Generator) -> pa.Table:
    """School, company and interest of those who say so; a company and a school share no ids with another kind."""
    p = net.people
    parts = [
        _listed(rng, p, "school", p.school, 0.8, dated=False),
        _listed(rng, p, "school", np.where(p.university == NONE, NONE, p.university + 1_000_000), 0.85, dated=False),
        _listed(rng, p, "company", p.company, 0.8, dated=True),
        *(_listed(rng, p, "interest", interest, 0.7, dated=True) for interest in p.interests.T),
    ]
    user, kind, entity, since = (np.concatenate([part[at] for part in parts]) for at in range(4))
    order = np.argsort(user, kind="stable")
    user, kind, entity, since = user[order], kind[order], entity[order], since[order]
    return _table(
        net,
        "affiliations",
        user_id=user,
        kind=pa.array(kind),
        entity_id=pa.array(entity).cast(pa.string()),
        times=pa.array(np.where(kind == "interest", 1 + rng.poisson(2.0, len(user)), 1).astype(np.int32)),
        since=since,
    )


def user_events(net: Network, rng: np.random.Generator) -> pa.Table:
    """About 2 % deactivated (a quarter came back), 1 % opted out (a third came back), a few banned or erased."""
    p = net.people
    parts = []
    plan = (("deactivated", 0.02, "reactivated", 0.25), ("opted_out", 0.01, "opted_in", 0.33))
    for left, share, back, returning in (*plan, ("banned", 0.003, "unbanned", 0.2), ("erased", 0.001, "", 0.0)):
        who = np.flatnonzero(rng.random(p.count) < share)
        at = _later(rng, p.joined[who])
        parts.append((who, np.full(len(who), left), at))
        again = rng.random(len(who)) < returning
        parts.append((who[again], np.full(int(again.sum()), back), _later(rng, at[again])))
    user, event, at = (np.concatenate([part[i] for part in parts]) for i in range(3))
    order = np.argsort(at, kind="stable")
    return _table(net, "user_events", user_id=user[order], event=pa.array(event[order]).cast(pa.string()), at=at[order])


def interactions(net: Network, rng: np.random.Generator) -> pa.Table:
    """Messages between friends, profile views of friends of friends, and invitations, with and without success."""
    p, f = net.people, net.friendships
    friends = _some(rng, f.count, 2 * p.count)
    swap = rng.random(len(friends)) < 0.5
    messages = (
        np.where(swap, f.other[friends], f.user[friends]),
        np.where(swap, f.user[friends], f.other[friends]),
        _later(rng, f.at[friends]),
    )
    views = _seen_strangers(net, rng, p.count)
    asked = _some(rng, f.count, f.count // 10)
    sent = np.maximum(
        f.at[asked] - net.clock.days(5) * rng.random(len(asked)),
        np.maximum(p.joined[f.user[asked]], p.joined[f.other[asked]]),
    )
    accepted = (f.user[asked], f.other[asked], sent)
    parts = (messages, views, accepted, _seen_strangers(net, rng, p.count // 4))
    kind = np.repeat((*INTERACTION_KINDS, "invite_sent"), [len(part[0]) for part in parts])
    user, other, at = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return _table(net, "interactions", user_id=user, other_id=other, kind=pa.array(kind).cast(pa.string()), at=at)


def blocks(net: Network, rng: np.random.Generator) -> pa.Table:
    """About 0.8 % of people block somebody; a tenth take it back."""
    return _exclusion(net, rng, "blocks", round(0.008 * net.people.count), 0.1)


def dismissals(net: Network, rng: np.random.Generator) -> pa.Table:
    """About one dismissal for a hundred friendships; one in twenty is taken back."""
    return _exclusion(net, rng, "dismissals", net.friendships.count // 100, 0.05)


def impressions(net: Network, rng: np.random.Generator) -> pa.Table:
    """Suggestions shown: mostly friends of friends, and those that became the friend within days."""
    p, f = net.people, net.friendships
    user, other, at = _seen_strangers(net, rng, 2 * p.count)
    outcome = np.searchsorted((0.9, 0.97), rng.random(len(user)), side="right")
    met = _some(rng, f.count, f.count // 20)
    before = np.maximum(
        f.at[met] - net.clock.days(3) * rng.random(len(met)),
        np.maximum(p.joined[f.user[met]], p.joined[f.other[met]]),
    )
    user, other = np.concatenate([user, f.user[met]]), np.concatenate([other, f.other[met]])
    at = np.concatenate([at, before])
    outcome = np.concatenate([outcome, np.full(len(met), OUTCOMES.index("accepted"))])
    position = np.minimum(rng.geometric(0.15, len(user)), 20).astype(np.int32)
    return _table(
        net,
        "impressions",
        user_id=user,
        other_id=other,
        at=at,
        position=pa.array(position),
        outcome=_named(outcome, OUTCOMES),
        model=pa.nulls(len(user), pa.string()),
    )


TABLES = {
    function.__name__: function
    for function in (
        connections, profiles, user_events, affiliations, interactions, blocks, dismissals, impressions,
    )
}  # fmt: skip


def place_names(count: int) -> list[str]:
    """Distinct names of towns."""
    heads = (
        "Ash",
        "Brook",
        "Clay",
        "Dun",
        "East",
        "Fern",
        "Glen",
        "Hart",
        "Iron",
        "Kings",
        "Lang",
        "Mill",
        "North",
        "Oak",
    )
    tails = ("bridge", "bury", "dale", "field", "ford", "ham", "haven", "hill", "ley", "mouth", "port", "stead", "ton")
    names = [head + tail for tail in tails for head in heads]
    rounds = ("", *(f" {ordinal}" for ordinal in range(2, 2 + count // len(names))))
    return [name + suffix for suffix in rounds for name in names][:count]


def _table(net: Network, name: str, **columns: Any) -> pa.Table:
    """A lake table: ids of people, shares of time as timestamps, the rest as given."""
    schema = LAKE_TABLES[name].schema
    arrays = []
    for field in schema:
        values = columns[field.name]
        if field.name in ("user_id", "other_id"):
            values = pa.array(net.people.ids[values])
        elif pa.types.is_timestamp(field.type):
            values = net.clock.at(values)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, names=schema.names)


def _named(codes: Rows, names: Any) -> pa.Array:
    """Text of each code, null where it is negative."""
    return pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0))


def _later(rng: np.random.Generator, at: Float64) -> Float64:
    """A moment between each and the end."""
    return at + (1 - at) * rng.random(len(at))


def _some(rng: np.random.Generator, count: int, wanted: int) -> Rows:
    """So many of `count` items, in order, repeats possible; none where there are none."""
    return np.sort(rng.integers(0, count, wanted)) if count else np.empty(0, np.int64)


def _year(p: People, rng: np.random.Generator) -> pa.Array:
    """The year in which those who studied finished, as an integer attribute."""
    return pa.array((p.birth_year + 22).astype(np.int32), mask=(p.university == NONE) | (rng.random(p.count) < 0.2))


def _listed(
    rng: np.random.Generator, p: People, kind: str, entity: Rows, share: float, dated: bool
) -> tuple[Rows, Rows, Rows, Float64]:
    """Those who have the entity and say so: person, kind, entity, since when (NaN: always)."""
    who = np.flatnonzero((entity != NONE) & (rng.random(p.count) < share))
    since = np.where(rng.random(len(who)) < 0.7, p.joined[who], _later(rng, p.joined[who]))
    return (
        who,
        np.full(len(who), kind, "U8"),
        entity[who].astype(np.int64),
        since if dated else np.full(len(who), np.nan),
    )


def _seen_strangers(net: Network, rng: np.random.Generator, wanted: int) -> tuple[Rows, Rows, Float64]:
    """Pairs of a person and a friend of a friend, with a time after both joined."""
    user = rng.integers(0, net.people.count, wanted)
    other = net.friendships.friends_of_friends(user, rng)
    user, other = user[other >= 0], other[other >= 0]
    joined = net.people.joined
    return user, other, _later(rng, np.maximum(joined[user], joined[other]))


def _exclusion(net: Network, rng: np.random.Generator, name: str, wanted: int, removed: float) -> pa.Table:
    user, other, at = _seen_strangers(net, rng, wanted)
    taken_back = np.where(rng.random(len(user)) < removed, _later(rng, at), np.nan)
    return _table(net, name, user_id=user, other_id=other, at=at, removed_at=taken_back)
