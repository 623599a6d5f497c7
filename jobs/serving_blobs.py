"""Encodes the serving tables of one block of users, and the popular list."""

from dataclasses import dataclass

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
from jobs.scoring import Block, Pairs
from lookup_api.ranking.capped_groups import CappedGroups, local_groups
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


def lists_of(graph: Graph, block: Block, rankings: pa.Table) -> Lists:
    """Rankings of the block's users, in rank order; a user without any has an empty list."""
    user = graph.rows_of(rankings["user_id"].to_numpy())
    lengths = np.bincount(user - block.first, minlength=block.last - block.first).astype(np.int64)
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


def candidate_blobs(graph: Graph, block: Block, pairs: Pairs, scores: Float32, keep: int) -> Blobs:
    """The best `keep` candidates of each user by the ranker, with their pair features."""
    top = top_per_user(pairs.user, pairs.candidate, scores, keep)
    best = pairs.take(top.order)
    ends = np.cumsum(np.bincount(best.user - block.first, minlength=block.last - block.first))
    return encode_candidates(Ragged(graph.ids[best.candidate], ends), Ragged(best.sources, ends), best.features)


def user_blobs(
    graph: Graph, block: Block, groups: CappedGroups, features: Float32, embeddings: Float32 | None
) -> Blobs:
    """features [N, U]; embeddings [N, D] or None."""
    rows = slice(block.first, block.last)
    users = block.last - block.first
    held = slice(groups.of_user.indptr[block.first], groups.of_user.indptr[block.last])
    ends = groups.of_user.indptr[block.first + 1 : block.last + 1] - held.start
    vectors = np.zeros((users, 0), np.float16) if embeddings is None else embeddings[rows].astype(np.float16)
    codes = np.ascontiguousarray(graph.attribute_codes[:, rows].T)
    return encode_users(np.array(features[rows]), codes, Ragged(groups.of_user.indices[held], ends), vectors)


def neighbour_blobs(graph: Graph, block: Block, popular: Int32, degrees: Int64, keep: int) -> Blobs:
    """Up to `keep` friends of each user, those with the fewest friends first: they say most about whom one knows."""
    users = np.arange(block.first, block.last, dtype=np.int32)
    friends = graph.now.connections
    kept = _least_connected(friends, block, degrees, keep)
    places, counts = barred_places(users, popular, friends, graph.excluded)
    ids = Ragged(graph.ids[kept[1]], np.cumsum(np.bincount(kept[0], minlength=len(users))))
    return encode_neighbours(degrees[users], ids, Ragged.of_lengths(places, counts))


def bar_blobs(graph: Graph, block: Block, degrees: Int64, keep: int) -> Blobs:
    """Whom each user must not be shown beside the `keep` stored friends: the other friends, and those excluded."""
    friends, excluded = graph.now.connections, graph.excluded
    people = max(graph.users, 1)
    stored = _least_connected(friends, block, degrees, keep)
    every = np.concatenate([_pairs_of(friends, block, people), _pairs_of(excluded, block, people)])
    keys = np.setdiff1d(every, stored[0] * people + stored[1])
    ends = np.cumsum(np.bincount(keys // people, minlength=block.last - block.first))
    return encode_bars(Ragged(graph.ids[keys % people], ends))


def _pairs_of(rows: Csr, block: Block, people: int) -> Int64:
    """place in the block * people + entry, for all entries of the block's rows; int64, ascending."""
    start, end = rows.indptr[block.first], rows.indptr[block.last]
    owner = np.repeat(np.arange(block.last - block.first), np.diff(rows.indptr[block.first : block.last + 1]))
    return owner * np.int64(people) + rows.indices[start:end]


def _least_connected(friends: Csr, block: Block, degrees: Int64, keep: int) -> npt.NDArray[np.int64]:
    """int64 [2, m]: place in the block, row of a friend; ascending."""
    start, end = friends.indptr[block.first], friends.indptr[block.last]
    lengths = np.diff(friends.indptr[block.first : block.last + 1])
    owner = np.repeat(np.arange(len(lengths)), lengths)
    friend = friends.indices[start:end].astype(np.int64)
    order = np.lexsort((friend, degrees[friend], owner))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    chosen = np.sort(order[rank < keep])
    return np.stack([owner[chosen], friend[chosen]])
