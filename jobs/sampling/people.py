"""Who the people of a sample network are: where they live, study and work, what they like, and when they join.

Every array is in order of joining: person 0 joined first. A *focus* is a small group in which people meet (one year of
one school, one team of one company, a neighbourhood, a local interest group).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

NONE = -1
FIRST_ID, ID_STEP = 10_000_000_000, 97
GROWTH = 1.7
"""People joined by a share s of the network's life: s ** GROWTH of all."""

BIRTH_YEARS = (1960, 2004)
TEAM, NEIGHBOURHOOD, CIRCLE = 30, 80, 50
"""Typical sizes of a team, a neighbourhood and a local interest group."""

MAX_INTERESTS = 5
FOCI = 6


@dataclass(frozen=True)
class People:
    """N people. Codes are int32 with NONE where there is none.

    ids: int64 [N]. joined: float64 [N] ascending, share of the network's life in [0, 1).
    sociability: float64 [N], relative, mean 1. interests: int32 [N, MAX_INTERESTS].
    foci: int32 [N, FOCI]: school year, university year, team, neighbourhood and two interest circles, one id space.
    """

    ids: Int64
    joined: Float64
    sociability: Float64
    birth_year: Int32
    city: Int32
    school: Int32
    university: Int32
    company: Int32
    interests: Int32
    foci: Int32

    @property
    def count(self) -> int:
        return len(self.ids)


def make_people(count: int, rng: np.random.Generator) -> People:
    """Draws `count` people, in order of joining."""
    cities = max(3, round(count**0.5 / 4))
    city_weights = _zipf(cities, 1.0)
    home = rng.choice(cities, count, p=city_weights).astype(np.int32)
    moved = rng.random(count) < 0.25
    city = np.where(moved, rng.choice(cities, count, p=city_weights), home).astype(np.int32)
    birth_year = np.clip(rng.normal(1989, 10, count), *BIRTH_YEARS).astype(np.int32)

    schools = max(2, count // 1500)
    school = _pick_local(rng, schools, city_weights, home)
    universities = max(2, count // 4000)
    studied = rng.random(count) < 0.5
    university = np.where(studied, rng.choice(universities, count, p=_zipf(universities, 0.6)), NONE)
    company = _pick_local(rng, max(3, count // 60), city_weights, city)
    company = np.where(rng.random(count) < 0.75, company, NONE)
    interests = _pick_interests(rng, count)

    # People of one school join around the same time: word of mouth.
    order = np.argsort(rng.normal(size=count) + 0.6 * rng.normal(size=schools)[school], kind="stable")
    columns = (birth_year, city, school, university.astype(np.int32), company.astype(np.int32), interests)
    birth_year, city, school, university, company, interests = (c[order] for c in columns)
    return People(
        ids=FIRST_ID + ID_STEP * (1 + rng.permutation(count).astype(np.int64)),
        joined=((np.arange(count) + rng.random(count)) / count) ** (1 / GROWTH),
        sociability=_sociability(rng, count),
        birth_year=birth_year,
        city=city,
        school=school,
        university=university,
        company=company,
        interests=interests,
        foci=_foci(rng, birth_year, city, school, university, company, interests),
    )


def _zipf(count: int, exponent: float) -> Float64:
    """Shares that fall with rank as (rank + 2) ** -exponent; they add up to 1."""
    weights = (np.arange(count) + 3.0) ** -exponent
    shares: Float64 = weights / weights.sum()
    return shares


def _sociability(rng: np.random.Generator, count: int) -> Float64:
    """Log-normal, so that degrees have a heavy tail."""
    sociability: Float64 = np.exp(rng.normal(-0.36, 0.85, count))
    return sociability


def _pick_local(rng: np.random.Generator, items: int, city_weights: Float64, city: Int32) -> Int32:
    """For each person one of the items (schools, companies) of their city, the bigger the likelier.

    Cities lie along a line, and people of a city that has none go to the next.
    """
    item_city = np.sort(rng.choice(len(city_weights), items, p=city_weights))
    weights = _zipf(items, 0.9)[rng.permutation(items)]
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    first = np.searchsorted(item_city, city, side="left")
    last = np.searchsorted(item_city, city, side="right")
    target = edges[first] + rng.random(len(city)) * (edges[last] - edges[first])
    picked = np.clip(np.searchsorted(edges, target, side="right") - 1, first, np.maximum(last - 1, first))
    local: Int32 = np.minimum(picked, items - 1).astype(np.int32)
    return local


def _pick_interests(rng: np.random.Generator, count: int) -> Int32:
    """Up to MAX_INTERESTS distinct interests a person, NONE after the last."""
    kinds = int(np.clip(count**0.5 / 2, 12, 500))
    picked = rng.choice(kinds, (count, MAX_INTERESTS), p=_zipf(kinds, 0.8)).astype(np.int32)
    for column in range(1, MAX_INTERESTS):
        repeated = (picked[:, :column] == picked[:, column : column + 1]).any(axis=1)
        picked[repeated, column] = NONE
    wanted = rng.binomial(MAX_INTERESTS, 0.45, count)
    picked[np.arange(MAX_INTERESTS) >= wanted[:, None]] = NONE
    return picked


def _foci(
    rng: np.random.Generator,
    birth_year: Int32,
    city: Int32,
    school: Int32,
    university: Int32,
    company: Int32,
    interests: Int32,
) -> Int32:
    years = BIRTH_YEARS[1] - BIRTH_YEARS[0] + 1
    year = birth_year - BIRTH_YEARS[0]
    places = int(city.max(initial=0)) + 1
    circles = _split(rng, np.concatenate([_joint(i, city, places) for i in interests.T[:2]]), CIRCLE)
    spaces = [
        _joint(school, year, years),
        _joint(university, year, years),
        _split(rng, company, TEAM),
        _split(rng, city, NEIGHBOURHOOD),
        circles,
    ]
    coded, offset = [], 0
    for space in spaces:
        distinct, codes = np.unique(space, return_inverse=True)
        coded.append(np.where(space == NONE, NONE, codes + offset))
        offset += len(distinct)
    return np.concatenate(coded).reshape(FOCI, len(city)).T.astype(np.int32, order="C")


def _joint(group: Int32, within: Int32, size: int) -> Int64:
    return np.where(group == NONE, NONE, group.astype(np.int64) * size + within)


def _split(rng: np.random.Generator, group: npt.NDArray[np.integer], size: int) -> Int64:
    """Cuts each group at random into parts of about `size` people; returns the part of each person."""
    _, codes, members = np.unique(group, return_inverse=True, return_counts=True)
    parts = np.maximum(1, -(-members // size))
    part = (rng.random(len(group)) * parts[codes]).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(parts)])[:-1]
    return np.where(group == NONE, NONE, first[codes] + part)
