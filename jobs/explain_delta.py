"""What a delta says of a pair: its own rows of whom new facts touch, and who left; all other rows are the night's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from infra.blobs import decode_bars, decode_candidates, decode_neighbours, decode_user
from infra.errors import CorruptArtifact
from infra.graph import Graph
from infra.kv import BARS, CANDIDATES, NEIGHBOURS, USERS, KeyValueReader
from infra.lmdb_tables import LmdbTables
from infra.overlay_tables import OverlayTables
from jobs.explained import Answer, below_the_cut, by_rule, left_out, matching_rows, named, of_pair, of_user, with_rank
from jobs.hourly import KIND, SHOWN
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.scoring import RankingModel
from lookup_api.ranking.sources import names_of

STAGE = "delta_tables"


@contextmanager
def serving_rows(folders: Mapping[str, Path]) -> Iterator[KeyValueReader]:
    """The serving tables of a release, those of a delta over those of its base."""
    tables: KeyValueReader = LmdbTables(folders["serving_tables"])
    try:
        if KIND in folders:
            tables = OverlayTables(LmdbTables(folders[KIND]), tables)
        yield tables
    finally:
        tables.close()


def explain_since(folders: Mapping[str, Path], graph: Graph, answer: Answer) -> Answer | None:
    """The answer where the delta changes it; None where the rows of the night stand.

    graph: of the night. answer: as begun, with "user_id" and "candidate_id".
    """
    user, candidate = int(answer["user_id"]), int(answer["candidate_id"])
    with serving_rows(folders) as tables:
        assert isinstance(tables, OverlayTables)
        if user == candidate:
            return None
        for who in (user, candidate):
            if who in tables.departed:
                detail = f"{who} left since the night: deactivated, banned, opted out or erased"
                return left_out(answer, by_rule(STAGE, "unknown_or_inactive", detail))
        if user in tables.changed:
            return _touched(folders, tables, graph, answer)
        if candidate in tables.changed and graph.rows_of(np.array([candidate], np.int64))[0] < 0:
            detail = f"{candidate} joined since the night, and nothing new touched the list of {user}"
            return left_out(answer, by_rule(STAGE, "joined_since", detail))
    return None


def knows(tables: KeyValueReader, user: int) -> frozenset[int]:
    """People who are friends of the user, or barred, by the serving rows."""
    circle, bars = tables.get(NEIGHBOURS, user), tables.get(BARS, user)
    return frozenset([*(decode_neighbours(circle).ids if circle else ()), *(decode_bars(bars) if bars else ())])


def _touched(folders: Mapping[str, Path], tables: OverlayTables, graph: Graph, answer: Answer) -> Answer:
    """Of a user whose list was made anew."""
    user, candidate = int(answer["user_id"]), int(answer["candidate_id"])
    known = [tables.get(USERS, who) for who in (user, candidate)]
    if known[1] is None:
        detail = f"{candidate} is not an active user as of this release: in no table of the lake, or gone"
        return left_out(answer, by_rule(STAGE, "unknown_or_inactive", detail))
    if candidate in knows(tables, user):
        return left_out(answer, _barred(tables, graph, user, candidate))
    features = [decode_user(blob or b"").features[: len(USER_FEATURES)] for blob in known]
    answer = answer | {"user_features": dict(zip(("user", "candidate"), map(_named_user, features), strict=True))}
    stored = decode_candidates(tables.get(CANDIDATES, user) or _none(user))
    at = stored.ids.index(candidate) if candidate in stored.ids else None
    if at is not None:
        pair = named(PAIR_FEATURES, stored.features[at])
        answer |= {"sources": list(names_of(stored.sources[at])), "pair_features": pair}
    ranked = matching_rows(folders[KIND] / SHOWN, of_user(user))
    shown = ranked.filter(of_pair(user, candidate)) if ranked.num_rows else ranked
    if shown.num_rows:
        return with_rank(answer, shown.to_pylist()[0])
    if at is None:
        detail = f"not among the {len(stored.ids)} candidates that are kept of the list made since the night"
        return left_out(answer, by_rule(STAGE, "not_a_candidate", detail, kept=len(stored.ids)))
    matrix = assemble(stored.features[[at]], features[0][None], features[1][None])
    score = float(RankingModel.open(folders["ranker"]).score(matrix)[0])
    return left_out(answer, below_the_cut(at + 1, len(stored.ids), score, ranked))


def _barred(tables: OverlayTables, graph: Graph, user: int, candidate: int) -> dict[str, Any]:
    """Rows of friends hold the least connected of them; the others are barred, like whoever is blocked."""
    circles = {who: decode_neighbours(tables.get(NEIGHBOURS, who) or _none(who)) for who in (user, candidate)}
    whole = any(circle.friends == len(circle.ids) for circle in circles.values())
    stored = candidate in circles[user].ids or user in circles[candidate].ids
    if stored or (not whole and _were_friends(graph, user, candidate)):
        return by_rule(STAGE, "connected", "they are connected")
    return by_rule(STAGE, "blocked_or_dismissed", "one blocked the other, or the user dismissed the person")


def _were_friends(graph: Graph, user: int, candidate: int) -> bool:
    one, other = graph.rows_of(np.array([user, candidate], np.int64)).tolist()
    return one >= 0 and other >= 0 and other in graph.now.connections.row(one)


def _named_user(features: Any) -> dict[str, float]:
    return named(USER_FEATURES, features)


def _none(user: int) -> bytes:
    raise CorruptArtifact(f"serving tables: no row of {user}", "Verify the release.")
