"""A small graph with communities planted in it: friendships within are likely, across rare."""

from dataclasses import replace

import numpy as np

from infra.graph import LEARN, NO_DAY, REPORT, VALIDATE, Csr, Graph, View


def planted_graph(
    users: int = 240, communities: int = 6, inside: float = 0.3, across: float = 0.01, seed: int = 5
) -> Graph:
    """Attributes: school is the community for 4 in 5 users, colour is noise; affiliations: a club of the community."""
    draw = np.random.default_rng(seed)
    community = np.arange(users) % communities
    same = community[:, None] == community[None, :]
    pairs = np.argwhere(np.triu(draw.random((users, users)) < np.where(same, inside, across), 1))
    held = draw.random(len(pairs)) < 0.1
    school = np.where(draw.random(users) < 0.8, community, -1)
    codes = np.stack([school, draw.integers(0, 4, users)]).astype(np.int32)
    clubs = Csr.from_pairs(users, np.arange(users), community, np.ones(users, np.float32))
    split = draw.choice([LEARN, VALIDATE, REPORT], users, p=[0.4, 0.2, 0.4]).astype(np.uint8)
    return assemble(pairs[~held], pairs[held], codes, (communities, 4), clubs, split)


def assemble(past, held_out, codes, cardinalities, affiliations, split) -> Graph:
    users = affiliations.rows
    return Graph(
        ids=np.arange(users, dtype=np.int64) * 97 - 5,
        split=split,
        joined_day=np.full(users, NO_DAY, np.int32),
        attributes=("school", "colour")[: len(codes)],
        cardinalities=cardinalities,
        attribute_codes=codes,
        kinds=("club",),
        entity_kind=np.zeros(int(affiliations.indices.max(initial=-1)) + 1, np.int16),
        held_out=held_out.astype(np.int32).reshape(-1, 2),
        held_out_day=np.full(len(held_out), NO_DAY, np.int32),
        excluded=Csr.empty(users),
        past=_view(past, affiliations),
        now=_view(np.concatenate([past, held_out]), affiliations),
        hold_out="random",
        as_of_day=20_000,
    )


def bare_graph(users: int) -> Graph:
    """Users without friends, attributes or affiliations."""
    none = np.empty((0, 2), np.int64)
    return assemble(
        none, none, np.empty((0, users), np.int32), (), Csr.empty(users, np.float32), np.zeros(users, np.uint8)
    )


def lonely_graph() -> Graph:
    """Planted, and its last users have no friends, attributes or affiliations at all."""
    graph = planted_graph(240)
    codes = graph.attribute_codes.copy()
    codes[:, -20:] = -1
    excluded = Csr.from_pairs(240, np.array([239, 238]), np.array([0, 1]))
    past, now = cut_view(graph.past, 220), cut_view(graph.now, 220)
    return replace(graph, attribute_codes=codes, past=past, now=now, excluded=excluded)


def cut_view(view: View, users: int) -> View:
    """The view without friends and affiliations of those from row `users` on."""

    def kept(rows: Csr, columns: bool) -> Csr:
        row = np.repeat(np.arange(rows.rows), rows.degrees())
        keep = (row < users) & ((rows.indices < users) if columns else True)
        values = None if rows.values is None else rows.values[keep]
        return Csr.from_pairs(rows.rows, row[keep], rows.indices[keep], values)

    return replace(view, connections=kept(view.connections, True), affiliations=kept(view.affiliations, False))


def _view(pairs, affiliations: Csr) -> View:
    users = affiliations.rows
    both = np.concatenate([pairs, pairs[:, ::-1]])
    connections = Csr.from_pairs(users, both[:, 0], both[:, 1], np.full(len(both), NO_DAY, np.int32))
    return View(connections, affiliations, Csr.empty(users, np.float32))
