"""Small seeded networks with groups, held-out friendships and excluded pairs, for tests of the ranking core."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from infra.graph import LEARN, NO_DAY, REPORT, VALIDATE, Csr, Graph, View


def small_graph(users: int = 300, seed: int = 3, timed: bool = True) -> Graph:
    """Communities of 20 with an attribute that names them, an uninformative one, and places; a tenth held out.

    The last user has neither friends nor groups.
    """
    rng = np.random.default_rng(seed)
    community = np.arange(users) // 20
    near = community[:, None] == community
    friends = np.triu(rng.random((users, users)) < np.where(near, 0.35, 0.01), 1)
    friends[:, -1] = friends[-1] = False
    pairs = np.argwhere(friends).astype(np.int32)
    day = rng.integers(10_000, 11_000, len(pairs)).astype(np.int32) if timed else np.full(len(pairs), NO_DAY, np.int32)
    held = np.zeros(len(pairs), bool)
    held[np.argsort(-day, kind="stable")[: len(pairs) // 10] if timed else rng.permutation(len(pairs))[::10]] = True
    codes = np.stack([community, rng.integers(0, 3, users)]).astype(np.int32)
    codes[:, -1] = -1
    places = np.unique(np.stack([rng.integers(0, max(users - 1, 1), 600), rng.integers(0, 50, 600)], axis=1), axis=0)
    affiliations = Csr.from_pairs(users, places[:, 0], places[:, 1], np.ones(len(places), np.float32))
    acts = np.unique(rng.integers(0, max(users - 1, 1), (400, 2)), axis=0)
    interactions = Csr.from_pairs(users, acts[:, 0], acts[:, 1], rng.integers(1, 9, len(acts)).astype(np.float32))
    views = [View(symmetric(users, pairs[m], day[m]), affiliations, interactions) for m in (~held, np.ones_like(held))]
    return Graph(
        ids=np.arange(users, dtype=np.int64) * 7 - 100,
        split=rng.choice([LEARN, VALIDATE, REPORT], users, p=[0.4, 0.2, 0.4]).astype(np.uint8),
        joined_day=np.full(users, 9_000, np.int32),
        attributes=("school", "mood"),
        cardinalities=(int(community.max()) + 1, 3),
        attribute_codes=codes,
        kinds=("place",),
        entity_kind=np.zeros(50, np.int16),
        held_out=pairs[held],
        held_out_day=day[held],
        excluded=symmetric(users, np.array([[0, 5], [1, 40]], np.int32)[: 2 * (users > 40)], None),
        past=views[0],
        now=views[1],
        hold_out="time" if timed else "random",
        as_of_day=11_000,
    )


def without_friends_of(graph: Graph, rows: npt.NDArray[np.int64] | list[int]) -> Graph:
    """The graph, but nobody is a friend of these rows in now, nor they of anybody."""
    links = graph.now.connections
    owner = np.repeat(np.arange(links.rows), links.degrees())
    kept = ~np.isin(owner, rows) & ~np.isin(links.indices, rows)
    values = None if links.values is None else np.asarray(links.values)[kept]
    fewer = Csr.from_pairs(links.rows, owner[kept], links.indices[kept], values)
    return replace(graph, now=replace(graph.now, connections=fewer))


def symmetric(users: int, pairs: npt.NDArray[np.int32], values: npt.NDArray[np.int32] | None) -> Csr:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    return Csr.from_pairs(users, both[:, 0], both[:, 1], None if values is None else np.concatenate([values, values]))


def dense(rows: Csr, columns: int) -> npt.NDArray[np.float64]:
    """0/1 matrix of compressed rows."""
    out = np.zeros((rows.rows, columns))
    out[np.repeat(np.arange(rows.rows), rows.degrees()), rows.indices] = 1
    return out
