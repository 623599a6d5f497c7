"""What became of the people whom each variant of a route showed, by the lake's impressions: the gate of a promotion.

Users, not showings, were drawn, and those of one user are alike: the variance is that of users (Deng, Knoblich and Lu,
"Applying the Delta Method in Metric Analytics", KDD 2018, section 3).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.events import OUTCOMES
from infra.lake import cut_pieces, describe_file, open_lake, read_piece
from infra.model_routes import CANARY, RELEASE, STABLE, VARIANTS, Route
from infra.schemas import IMPRESSIONS
from infra.store import ObjectStore, open_store
from jobs.gates import Finding, Z

GATE = "outcomes"
SHOWN, *REACTIONS = OUTCOMES
READ = ["user_id", "other_id", "at", "outcome", "model"]
LEAST = 10
"""Reactions, of both variants together, and users of each, below which nothing is said of a difference."""
MOST_P = 0.05 / len(REACTIONS)
"""Chance of a canary that is as good to look this much worse in a reaction, below which it is refused: in all of them
together at most 5 % of those that are as good (Bonferroni)."""

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shown:
    """What one variant showed. pairs float64 [n]: how many people each user was shown. reacted: by reaction, to how
    many of them the user reacted so, float64 [n]."""

    pairs: Float64
    reacted: Mapping[str, Float64]

    @property
    def users(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Rate:
    """A share of those shown, and its 95 % interval."""

    of: float
    low: float
    high: float
    number: int

    def __str__(self) -> str:
        return f"{self.of:.2%} ({self.low:.2%} to {self.high:.2%})"


@dataclass(frozen=True)
class Difference:
    """Canary less stable. p: of a canary that is as good to look so much worse or more; None where too little is
    known."""

    reaction: str
    stable: Rate
    canary: Rate
    p: float | None

    @property
    def is_worse(self) -> bool:
        return self.p is not None and self.p < MOST_P


@dataclass(frozen=True)
class Outcomes:
    """canary: name@version. since: RFC 3339 UTC of its first showing. users, shown: by variant, how many users, and
    people shown to them."""

    canary: str
    since: str
    users: Mapping[str, int]
    shown: Mapping[str, int]
    differences: tuple[Difference, ...]

    def values(self) -> dict[str, Any]:
        """As `pymk model promote --json` prints it."""
        return {
            "canary": self.canary,
            "since": self.since,
            "users": dict(self.users),
            "shown": dict(self.shown),
            "rates": {
                one.reaction: {STABLE: vars(one.stable), CANARY: vars(one.canary), "p_worse": one.p}
                for one in self.differences
            },
        }

    def findings(self) -> Iterator[Finding]:
        """What is against a promotion, and a warning where nothing is known."""
        for one in self.differences:
            if one.is_worse:
                detail = f"{one.reaction} {one.canary} of those shown, {one.stable} by the stable model, p {one.p:.2g}"
                yield Finding(GATE, detail, True)
        if all(one.p is None for one in self.differences):
            yield Finding(GATE, f"too little is known: {self.shown[CANARY]:,} people shown by the canary", False)


def outcomes_of(lake: str, surface: str, route: Route) -> Outcomes | None:
    """Of a route with a canary, since the canary first showed somebody; None where no impression names it.

    Raises InputError for a lake that cannot be read.
    """
    assert route.canary is not None
    rows = _read(open_store(lake), lake)
    model, is_shown = rows["model"].to_numpy(), rows["outcome"].to_numpy() == SHOWN
    of_canary = is_shown & (model == str(route.canary.model))
    if not of_canary.any():
        return None
    at, users = rows["at"].to_numpy(), rows["user_id"].to_numpy()
    first = at[of_canary].min()
    of_stable = model == str(route.stable or RELEASE)
    if route.stable is None:  # answers do not name the release's ranker, so callers may not either
        of_stable |= (model == "") & ~route.canary.has_each(surface, users)
    code = np.where(of_canary, 1, np.where(is_shown & of_stable, 0, -1))
    variants = _by_variant(rows, np.where(at >= first, code, -1), first)
    shown = dict(zip(VARIANTS, variants, strict=True))
    return Outcomes(
        canary=str(route.canary.model),
        since=str(np.datetime_as_string(first.astype("M8[s]"))) + "Z",
        users={name: one.users for name, one in shown.items()},
        shown={name: int(one.pairs.sum()) for name, one in shown.items()},
        differences=tuple(_difference(name, shown[STABLE], shown[CANARY]) for name in REACTIONS),
    )


def _read(store: ObjectStore, lake: str) -> pa.Table:
    """The sound rows of impressions, those without a model with an empty one."""
    schema = pa.schema([pa.field(name, IMPRESSIONS.schema.field(name).type) for name in READ])
    batches = [
        batch.select(READ).cast(schema)
        for info in open_lake(lake).tables.get(IMPRESSIONS.name, ())
        for piece in cut_pieces(IMPRESSIONS.name, info.key, describe_file(store, IMPRESSIONS, info.key))
        for batch in read_piece(store, piece, {})
    ]
    rows = pa.Table.from_batches(batches, schema)
    for name, otherwise in (("outcome", SHOWN), ("model", "")):
        rows = rows.set_column(READ.index(name), name, pc.fill_null(rows[name], otherwise))
    return rows.drop_null()


def _by_variant(rows: pa.Table, code: Int64, first: Any) -> list[Shown]:
    """code int64 [rows]: 0 for what the stable model showed, 1 the canary, -1 for other rows. A reaction is to whoever
    showed the person last before it; a person counts once by user and variant, and so does each reaction."""
    at, outcome = rows["at"].to_numpy(), rows["outcome"].to_numpy()
    is_shown = outcome == SHOWN
    order = np.lexsort((~is_shown, at, rows["other_id"].to_numpy(), rows["user_id"].to_numpy()))
    order = order[at[order] >= first]
    user, other = (rows[name].to_numpy()[order] for name in ("user_id", "other_id"))
    new = np.ones(len(order), bool)
    new[1:] = (user[1:] != user[:-1]) | (other[1:] != other[:-1])
    pair, shown = np.cumsum(new) - 1, is_shown[order]
    last = np.maximum.accumulate(np.where(shown, np.arange(len(order)), -1))
    start = np.flatnonzero(new)[pair] if len(order) else pair
    showed = np.where(last >= start, code[order][last], -1)  # who showed the pair last
    people, of = np.unique(user, return_inverse=True)
    found = []
    for variant in range(len(VARIANTS)):
        mine = showed == variant
        pairs = _per_user(of, pair, mine & shown, len(people))
        reacted = {name: _per_user(of, pair, mine & (outcome[order] == name), len(people)) for name in REACTIONS}
        some = pairs > 0
        found.append(Shown(pairs[some], {name: counts[some] for name, counts in reacted.items()}))
    return found


def _per_user(of: Int64, pair: Int64, chosen: npt.NDArray[np.bool_], users: int) -> Float64:
    """How many pairs of each user are among the chosen rows, float64 [users]. of, pair int64 [rows]: whose it is."""
    _, firsts = np.unique(pair[chosen], return_index=True)
    return np.bincount(of[chosen][firsts], minlength=users).astype(np.float64)


def _difference(reaction: str, stable: Shown, canary: Shown) -> Difference:
    return Difference(reaction, _rate(stable, reaction), _rate(canary, reaction), _p_worse(stable, canary, reaction))


def _rate(one: Shown, reaction: str) -> Rate:
    """Wilson's interval, of as many showings as would be that sure if they were of different users."""
    x, y = one.pairs, one.reacted[reaction]
    if not x.sum():
        return Rate(0.0, 0.0, 1.0, 0)
    rate, shown = float(y.sum() / x.sum()), float(x.sum())
    plain = rate * (1 - rate) / shown
    clustered = float(np.square(y - rate * x).sum() / x.sum() ** 2)
    n = shown / max(clustered / plain, 1.0) if plain else shown
    middle = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2)))
    return Rate(rate, max(middle - half, 0.0), min(middle + half, 1.0), int(y.sum()))


def _p_worse(stable: Shown, canary: Shown, reaction: str) -> float | None:
    """Of a score test: the variance is that of the residuals of all users by one rate for both."""
    ys = [one.reacted[reaction] for one in (stable, canary)]
    xs = [one.pairs for one in (stable, canary)]
    if min(stable.users, canary.users) < LEAST or ys[0].sum() + ys[1].sum() < LEAST:
        return None
    rate = (ys[0].sum() + ys[1].sum()) / (xs[0].sum() + xs[1].sum())
    residuals = np.concatenate([y - rate * x for x, y in zip(xs, ys, strict=True)])
    spread = residuals.var(ddof=1)
    error = np.sqrt(spread * sum(len(x) / x.sum() ** 2 for x in xs))
    if not error:
        return None
    apart = ys[1].sum() / xs[1].sum() - ys[0].sum() / xs[0].sum()
    return erfc(float(-apart / error) / sqrt(2)) / 2
