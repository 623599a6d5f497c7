"""Encodes the serving tables of one block of users, and the popular list."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.blob_writer import (
    Blobs,
    Ragged,
    RankingColumns,
    encode_bars,
    encode_candidates,
    encode_neighbours,
    encode_rankings,
    encode_users,
)
from infra.graph import Csr, Graph
from jobs.reason_shapes import reason_columns
from jobs.scoring import Pairs
from lookup_api.ranking.capped_groups import CappedGroups, local_groups
from lookup_api.ranking.pages import with_page
from lookup_api.ranking.popular import barred_places
from lookup_api.ranking.top import top_per_user

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lists:
    """Ranked lists one after the other, best first. lengths int64 [lists]; people: rows int32 [n]; scores float32 [n];
    reasons: list<REASON> [n]."""

    lengths: Int64
    people: Int32
    scores: Float32
    reasons: pa.ListArray


def lists_of(graph: Graph, users: Int32, rankings: pa.Table) -> Lists:
    """Rankings of some users, rows ascending, in rank order; a user without any has an empty list."""
    lengths = _counts(users, graph.rows_of(rankings["user_id"].to_numpy()))
    people = graph.rows_of(rankings["candidate_id"].to_numpy()).astype(np.int32)
    return Lists(lengths, people, rankings["score"].to_numpy(), rankings["reasons"].combine_chunks())


def popular_lists(graph: Graph, popular: Int32) -> Lists:
    """The one list of popular people; the score is how connected they are beside the most connected."""
    degrees = graph.now.connections.degrees()[popular].astype(np.int32)
    n = len(popular)
    none = pa.nulls(n, pa.string())
    kinds = pa.array(["popular"] * n, pa.string())
    names = ["kind", "attribute", "value", "count"]
    reasons = pa.ListArray.from_arrays(
        pa.array(np.arange(n + 1, dtype=np.int32)), pa.StructArray.from_arrays([kinds, none, none, degrees], names)
    )
    scores = (degrees / max(int(degrees.max(initial=1)), 1)).astype(np.float32)
    return Lists(np.array([n], np.int64), popular, scores, reasons)


def ranking_blobs(graph: Graph, groups: CappedGroups, lists: Lists) -> Blobs:
    owner = np.repeat(np.arange(len(lists.lengths)), lists.lengths)
    local = local_groups(groups, owner, lists.people, len(lists.lengths))
    ends = np.cumsum(lists.lengths)
    grouped = local.per_list > 0
    return encode_rankings(
        RankingColumns(
            ids=Ragged(graph.ids[lists.people], ends),
            scores=Ragged(lists.scores, ends),
            group_counts=Ragged.of_lengths(local.counts[grouped[owner]], np.where(grouped, lists.lengths, 0)),
            group_codes=Ragged.of_lengths(local.codes, local.codes_per_list),
            group_rules=Ragged.of_lengths(local.rules, local.per_list),
            **reason_columns(lists.reasons, owner, lists.lengths),
        )
    )


def paged_blobs(rankings: Blobs, limit: int, caps: tuple[int, ...]) -> Blobs:
    """Rankings with their first pages, made by what serves them: a loop, but hardly a hundredth of a user's night."""
    if limit == 0:
        return rankings
    blobs = [with_page(rankings.one(place), limit, caps) for place in range(len(rankings))]
    ends = np.cumsum([len(blob) for blob in blobs], dtype=np.int64)
    return Blobs(np.frombuffer(b"".join(blobs), np.uint8), ends)


def candidate_blobs(graph: Graph, users: Int32, pairs: Pairs, scores: Float32, keep: int) -> Blobs:
    """The best `keep` candidates of each user by the ranker, with their pair features."""
    top = top_per_user(pairs.user, pairs.candidate, scores, keep)
    best = pairs.take(top.order)
    ends = np.cumsum(_counts(users, best.user))
    return encode_candidates(Ragged(graph.ids[best.candidate], ends), Ragged(best.sources, ends), best.features)


def user_blobs(
    graph: Graph, users: Int32, groups: CappedGroups, features: Float32, embeddings: Float32 | None
) -> Blobs:
    """features [N, U]; embeddings [N, D] or None."""
    held = groups.of_user.indices[groups.of_user.entries_of(users)]
    ends = np.cumsum(groups.of_user.indptr[users + 1] - groups.of_user.indptr[users])
    vectors = np.zeros((len(users), 0), np.float16) if embeddings is None else embeddings[users].astype(np.float16)
    codes = np.ascontiguousarray(np.asarray(graph.attribute_codes)[:, users].T)
    return encode_users(np.array(features[users]), codes, Ragged(held, ends), vectors)


def neighbour_blobs(graph: Graph, users: Int32, popular: Int32, degrees: Int64, keep: int) -> Blobs:
    """Up to `keep` friends of each user, those with the fewest friends first: they say most about whom one knows."""
    friends = graph.now.connections
    kept = _least_connected(friends, users, degrees, keep)
    places, counts = barred_places(users, popular, friends, graph.excluded)
    ids = Ragged(graph.ids[kept[1]], np.cumsum(np.bincount(kept[0], minlength=len(users))))
    return encode_neighbours(degrees[users], ids, Ragged.of_lengths(places, counts))


def bar_blobs(graph: Graph, users: Int32, degrees: Int64, keep: int) -> Blobs:
    """Whom each user must not be shown beside the `keep` stored friends: the other friends, and those excluded."""
    friends, excluded = graph.now.connections, graph.excluded
    people = max(graph.users, 1)
    stored = _least_connected(friends, users, degrees, keep)
    every = np.concatenate([_pairs_of(friends, users, people), _pairs_of(excluded, users, people)])
    keys = np.setdiff1d(every, stored[0] * people + stored[1])
    ends = np.cumsum(np.bincount(keys // people, minlength=len(users)))
    return encode_bars(Ragged(graph.ids[keys % people], ends))


def _counts(users: Int32, mentioned: npt.NDArray[Any]) -> Int64:
    """How often each user is mentioned, int64 [users]; nobody else may be."""
    return np.bincount(np.searchsorted(users, mentioned), minlength=len(users)).astype(np.int64)


def _pairs_of(rows: Csr, users: Int32, people: int) -> Int64:
    """place among the users * people + entry, for all entries of their rows; int64, ascending."""
    owner = np.repeat(np.arange(len(users)), rows.indptr[users + 1] - rows.indptr[users])
    return owner * np.int64(people) + rows.indices[rows.entries_of(users)]


def _least_connected(friends: Csr, users: Int32, degrees: Int64, keep: int) -> npt.NDArray[np.int64]:
    """int64 [2, m]: place among the users, row of a friend; ascending."""
    lengths = friends.indptr[users + 1] - friends.indptr[users]
    owner = np.repeat(np.arange(len(lengths)), lengths)
    friend = friends.indices[friends.entries_of(users)].astype(np.int64)
    order = np.lexsort((friend, degrees[friend], owner))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chosen = np.sort(order[rank < keep])
    return np.stack([owner[chosen], friend[chosen]])
