"""Why a person is shown to a user at this rank, or which stage or rule left them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.errors import UsageError
from infra.graph import NO_DAY, Csr, Graph, open_array
from infra.settings import CandidateSettings, RunSettings
from jobs.explain_delta import explain_since
from jobs.explained import below_the_cut, by_rule, left_out, matching_rows, named, of_pair, of_user, with_rank
from jobs.hourly import KIND as DELTA
from jobs.scoring import Pairs, Scorer
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.sources import names_of

LOOKED_AT = 5_000
"""People that each source is asked for to see which were close to naming somebody who did not make it."""
INT64 = range(-(2**63), 2**63)

NEEDED = ("graph", "embeddings", "index", "candidates", "features", "ranker", "rankings")


@dataclass(frozen=True)
class Release:
    """The opened artifacts of a release: kind -> data folder."""

    folders: Mapping[str, Path]

    def __post_init__(self) -> None:
        missing = [kind for kind in NEEDED if kind not in self.folders]
        if missing:
            raise UsageError(f"explain: the release has no {', '.join(missing)}", "Name a release of the nightly run.")

    def settings_of(self, kind: str) -> Mapping[str, Any]:
        """The settings an artifact was made with, as its manifest has them; empty where there is none beside it."""
        manifest = self.folders[kind].parent / "manifest.json"
        return dict(orjson.loads(manifest.read_bytes())["settings"]) if manifest.exists() else {}

    def rows(self, kind: str, wanted: pc.Expression) -> pa.Table:
        """The rows of a parted table that match."""
        folder = self.folders[kind] / "now" if kind in ("candidates", "features") else self.folders[kind]
        return matching_rows(folder, wanted)


def explain(folders: Mapping[str, Path], user_id: int, candidate_id: int) -> dict[str, Any]:
    """What a release says of one pair, as JSON values; ids are text.

    folders: kind -> data folder of the release's artifacts. The answer has "user_id", "candidate_id", "shown", "rank",
    "score", "reasons", "summary" and, where they are known, "sources", "pair_features" and "user_features". Somebody
    who is not shown has "left_out_by": {"stage", "rule", "detail"}. What the lookup API makes of it at a request is in
    jobs.explain_answer. Raises UsageError for a release without the nightly artifacts and for an id that is none.
    """
    for who, given in (("user", user_id), ("candidate", candidate_id)):
        if given not in INT64:
            raise UsageError(f"explain: {who} {given} is no id", "Ids are 64-bit integers.")
    release = Release(folders)
    graph = Graph.open(folders["graph"])
    answer: dict[str, Any] = {"user_id": str(user_id), "candidate_id": str(candidate_id)}
    answer |= {"shown": False, "rank": None, "score": None, "reasons": []}
    if DELTA in folders and (since := explain_since(folders, graph, answer)) is not None:
        return since
    user, candidate = graph.rows_of(np.array([user_id, candidate_id], np.int64)).tolist()
    barred = _barred(release, graph, (user_id, candidate_id), user, candidate)
    if barred is not None:
        return left_out(answer, barred)
    answer["user_features"] = _user_features(release, user, candidate)
    shown = _shown(release, user_id, candidate_id)
    pairs = _pairs(release, user)
    place = np.flatnonzero(pairs.candidate == candidate)
    if len(place):
        answer |= _pair(pairs, int(place[0]))
    if shown is not None:
        return with_rank(answer, shown)
    if len(place):
        return left_out(answer, _below_cut(release, pairs, int(place[0]), user_id))
    by, pair = _no_candidate(release, graph, user, candidate)
    return left_out(answer | {"pair_features": pair}, by)


def _barred(release: Release, graph: Graph, ids: tuple[int, int], user: int, candidate: int) -> dict[str, Any] | None:
    """The rule that keeps the pair out before anything is computed, or None."""
    if ids[0] == ids[1]:
        return by_rule("candidates", "self", "nobody is shown to themselves")
    for who, row in zip(ids, (user, candidate), strict=True):
        if row < 0:
            why = "in no table of the lake, or deactivated, banned, opted out or erased"
            detail = f"{who} is not an active user as of this release: {why}"
            return by_rule("build_graph", "unknown_or_inactive", detail, quarantined=_quarantined(release, who))
    friends = graph.now.connections
    if (at := _entry(friends, user, candidate)) is not None:
        day = NO_DAY if friends.values is None else friends.values[at]
        since = "" if day == NO_DAY else f" since {np.datetime64(int(day), 'D')}"
        return by_rule("candidates", "connected", f"they are connected{since}")
    if _entry(graph.excluded, user, candidate) is not None:
        return by_rule("candidates", "blocked_or_dismissed", "one blocked the other, or the user dismissed the person")
    return None


def _entry(rows: Csr, row: int, column: int) -> int | None:
    """Where (row, column) is among the entries, or None."""
    begin, end = int(rows.indptr[row]), int(rows.indptr[row + 1])
    at = begin + int(np.searchsorted(rows.indices[begin:end], column))
    return at if at < end and rows.indices[at] == column else None


def _quarantined(release: Release, user_id: int) -> list[dict[str, Any]]:
    """Up to three refused rows of the lake that name the id."""
    path = release.folders["graph"] / "quarantine.parquet"
    if not path.exists():
        return []
    table = pq.read_table(path)
    named = pc.match_substring_regex(table["row"], rf"(^|[^0-9-]){user_id}([^0-9]|$)")
    found: list[dict[str, Any]] = table.filter(named).slice(0, 3).to_pylist()
    return found


def _shown(release: Release, user_id: int, candidate_id: int) -> dict[str, Any] | None:
    """The row of the rankings, or None."""
    found = release.rows("rankings", of_pair(user_id, candidate_id))
    return found.to_pylist()[0] if found.num_rows else None


def _pairs(release: Release, user: int) -> Pairs:
    """All candidates of the user with their pair features."""
    table = release.rows("features", pc.field("user_row") == user)
    if not table.num_columns:
        none = np.zeros(0, np.int32)
        return Pairs(none, none, none.astype(np.uint8), np.zeros((0, len(PAIR_FEATURES)), np.float16))
    columns = [table[name].to_numpy() for name in PAIR_FEATURES]
    features = np.stack(columns, axis=1).astype(np.float16, copy=False)
    user_row, candidate_row, sources = (table[name].to_numpy() for name in ("user_row", "candidate_row", "sources"))
    return Pairs(user_row, candidate_row, sources, features)


def _pair(pairs: Pairs, at: int) -> dict[str, Any]:
    """How the candidate was found, and what is stored of the pair."""
    return {
        "sources": list(names_of(int(pairs.sources[at]))),
        "pair_features": named(PAIR_FEATURES, pairs.features[at]),
    }


def _user_features(release: Release, user: int, candidate: int) -> dict[str, dict[str, float]]:
    stored = open_array(release.folders["features"] / "now" / "user_features.npy")
    return {"user": named(USER_FEATURES, stored[user]), "candidate": named(USER_FEATURES, stored[candidate])}


def _below_cut(release: Release, pairs: Pairs, at: int, user_id: int) -> dict[str, Any]:
    """The place the candidate has among the user's candidates, beyond the people kept."""
    scores = Scorer.open(release.folders["features"], release.folders["ranker"], "now").score(pairs)
    ahead = (scores > scores[at]) | ((scores == scores[at]) & (pairs.candidate < pairs.candidate[at]))
    ranked = release.rows("rankings", of_user(user_id))
    return below_the_cut(int(ahead.sum()) + 1, len(pairs), float(scores[at]), ranked)


def _no_candidate(release: Release, graph: Graph, user: int, candidate: int) -> tuple[dict[str, Any], dict[str, float]]:
    """By which sources somebody who is no candidate was close, with a would-be score; and the pair's features.

    A place is not told: in lists this long it would be another than in those of the night.
    """
    from index.sharded import ShardedIndex
    from jobs.newcomer_towers import TOWERS, tell
    from lookup_api.ranking.candidates import block_candidates
    from lookup_api.ranking.evidence import pair_features
    from lookup_api.ranking.network import open_network
    from lookup_api.ranking.proximity import proximity

    made_with = release.settings_of("candidates")
    settings = CandidateSettings(**made_with.get("candidates", {}))
    seed = RunSettings(**made_with.get("run", {})).seed
    network = open_network(release.folders["graph"], "now")
    vectors = open_array(release.folders["embeddings"] / "now.npy")
    users, reach = np.array([user], np.int32), min(LOOKED_AT, graph.users)
    wide = settings.model_copy(update={"per_user": reach})

    def nearest(rows: Any) -> Any:
        index = ShardedIndex.open(release.folders["index"] / "now")
        return np.asarray(index.search(np.ascontiguousarray(vectors[rows]), settings.ann)[0], np.int32)

    found = block_candidates(network, users, wide, seed, nearest if settings.ann else None)
    offsets, one = np.array([0, 1], np.int64), np.array([candidate], np.int32)
    factors = open_array(release.folders["features"] / "now" / "factors.npy")
    near = proximity(network, users, offsets, one, settings, seed)
    pair = pair_features(network, users, offsets, one, near, vectors, factors)
    if (towers := release.folders["features"] / "now" / TOWERS).exists():
        tell(pair, users, one, network.friends, open_array(towers))
    score = _score_one(release, user, candidate, pair)
    place = np.flatnonzero(found.rows[0] == candidate)
    close = list(names_of(int(found.sources[0, place[0]]))) if len(place) else []
    by_whom = f"close by {', '.join(close)}, asked for" if close else "no source names them when asked for"
    detail = f"not among the {settings.per_user:,} candidates kept; {by_whom} {reach:,}"
    detail += f"; the ranker would have given {score:.4f}"
    by = by_rule("candidates", "not_a_candidate", detail, kept=settings.per_user, close_by=close, would_be_score=score)
    return by, named(PAIR_FEATURES, pair[0])


def _score_one(release: Release, user: int, candidate: int, pair: Any) -> float:
    scorer = Scorer.open(release.folders["features"], release.folders["ranker"], "now")
    stored = scorer.user_features
    matrix = assemble(pair, stored[[user]], stored[[candidate]])
    assert matrix.shape == (1, len(FEATURES))
    return float(scorer.model.score(matrix)[0])
