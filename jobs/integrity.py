"""Whether a rankings artifact keeps its promises: everybody has a list, and nobody is shown who must not be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from infra.graph import Graph, Int64
from jobs.entries import contains
from jobs.gates import FAULTS
from jobs.profiles import ShownProfile, input_profile

_COLUMNS = ("user_id", "candidate_id", "rank", "score")


def check_rankings(graph: Graph, folder: Path, among: npt.NDArray[Any] | None = None) -> dict[str, Any]:
    """{"ranked_share": share with a list, None for nobody, "faults": {name: count}, "shown", "profile"}.

    Every row is checked, a part at a time. ranked_share and missing are of users who have somebody left to be shown.
    faults: a count for each of jobs.gates.FAULTS. shown: coverage, Gini and exposure of the top 1 % over the first
    places of all lists. profile: of inputs and scores, for jobs.drift. folder: data of a rankings artifact, parts in
    the order of users. among: rows of whom there must be a list, everybody if not given.
    """
    ranked = np.zeros(graph.users, bool)
    faults = dict.fromkeys(FAULTS, 0)
    profile = ShownProfile(np.zeros(graph.users, np.int64))
    for user_id, candidate_id, rank, score in _parts(folder):
        user, candidate = graph.rows_of(user_id), graph.rows_of(candidate_id)
        faults["unknown_user"] += int((user < 0).sum())
        faults["order"] += _disorder(user, rank, ranked)
        faults["score"] += int((~np.isfinite(score)).sum())
        chosen = user >= 0
        ranked[user[chosen]] = True
        for name, count in _pair_faults(graph, user[chosen], candidate[chosen]).items():
            faults[name] += count
        profile.add(candidate, rank, score)
    able = _has_somebody(graph)
    if among is not None:
        able &= np.isin(np.arange(graph.users), among)
    faults["missing"] = int((~ranked & able).sum())
    return {
        "ranked_share": float(ranked[able].mean()) if able.any() else None,
        "faults": faults,
        "shown": profile.spread(),
        "profile": {"inputs": input_profile(graph), "scores": profile.score_profile()},
    }


def _parts(folder: Path) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for path in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(path, columns=list(_COLUMNS))
        yield tuple(table[name].to_numpy() for name in _COLUMNS)


def _disorder(user: Int64, rank: npt.NDArray[Any], before: npt.NDArray[np.bool_]) -> int:
    """Rows whose rank is not one more than the row above of the same user, and lists in two places."""
    if not len(user):
        return 0
    starts = np.concatenate([[True], user[1:] != user[:-1]])
    expected = np.ones(len(rank), np.int64)
    expected[1:][~starts[1:]] = rank[:-1][~starts[1:]] + 1
    owners = user[starts & (user >= 0)]
    again = len(owners) - len(np.unique(owners)) + int(before[owners].sum())
    return int((rank != expected).sum()) + again


def _pair_faults(graph: Graph, user: Int64, candidate: Int64) -> dict[str, int]:
    known = candidate >= 0
    pairs = user[known] * max(graph.users, 1) + candidate[known]
    return {
        "unknown_candidate": int((~known).sum()),
        "itself": int((user == candidate).sum()),
        "friend": int(contains(graph.now.connections, user[known], candidate[known]).sum()),
        "excluded": int(contains(graph.excluded, user[known], candidate[known]).sum()),
        "twice": len(pairs) - len(np.unique(pairs)),
    }


def _has_somebody(graph: Graph) -> npt.NDArray[np.bool_]:
    """Users for whom somebody is left who is neither themselves, a friend nor excluded."""
    kept_away = graph.now.connections.degrees() + graph.excluded.degrees() + 1
    return np.asarray(kept_away < graph.users)
