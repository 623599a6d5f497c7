"""Groups: people who share an attribute value or an affiliation, and how much that says about friendship.

A group is an affiliated entity (0 .. E-1) or one value of one attribute (E ..). Its kind is the affiliation's kind or
the attribute. How telling a group is comes from the friendships seen inside it, drawn towards those of the groups
of the same kind and size, since most groups are small.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Graph, Int64, View
from lookup_api.ranking.arrays import pair, readonly
from lookup_api.ranking.kernels import njit

PRIOR_MEMBERS = 20.0
"""Members' worth of evidence that the groups of the same kind and size lend to one group."""
MAX_LIFT = 8.0
LEADERS = 1000
"""Members of a large group whom a user without friends is shown first."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """N users, G groups, the first `entities` of them affiliations. of_user: rows of groups. members: rows of users.

    lift float32 [G]: log of how much likelier two members are friends than two
    users at random, clipped to +-MAX_LIFT. draw float32 [G]: friends that a member has inside beyond chance, which is
    what the group weighs to a walker next to one friend; 0 for groups of one. pull float32 [N]: sum
    of draw over a user's groups.
    """

    of_user: Csr
    members: Csr
    entities: int
    lift: Float32
    draw: Float32
    pull: Float32

    @classmethod
    def build(cls, graph: Graph, view: View) -> "Groups":
        of_user = memberships(graph, view)
        count = len(graph.entity_kind) + sum(graph.cardinalities)
        members = transpose(of_user, count)
        size = members.degrees().astype(np.float64)
        inside = np.zeros(count, np.int64)
        links = view.connections
        friendships_inside(*pair(links), *pair(of_user), inside)
        degree = links.entries / max(graph.users, 1)
        rate = _shrunk((2 * inside).astype(np.float64), size, kinds_of(graph))
        chance = size * degree / max(graph.users, 1)
        lift = np.log(np.maximum(rate, 1e-9) / np.maximum(chance, 1e-9))
        draw = np.where(size >= 2, np.maximum(rate - chance, 0.0), 0.0).astype(np.float32)
        return cls(
            of_user,
            members,
            len(graph.entity_kind),
            np.clip(lift, -MAX_LIFT, MAX_LIFT).astype(np.float32),
            draw,
            _sums(of_user, draw),
        )


def kinds_of(graph: Graph) -> npt.NDArray[np.int64]:
    """Kind of each group, int64 [G]: affiliation kinds first, then attributes."""
    attributes = np.repeat(np.arange(len(graph.attributes)) + len(graph.kinds), graph.cardinalities)
    return np.concatenate([np.asarray(graph.entity_kind, np.int64), attributes.astype(np.int64)])


def memberships(graph: Graph, view: View) -> Csr:
    """Groups of every user in ascending order: affiliations, then attribute values."""
    entities = len(graph.entity_kind)
    offsets = entities + np.concatenate([[0], np.cumsum(graph.cardinalities)])[: len(graph.attributes)]
    codes = np.asarray(graph.attribute_codes)
    counts = view.affiliations.degrees() + (codes >= 0).sum(axis=0, dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    indices = np.empty(indptr[-1], np.int32)
    _fill(*pair(view.affiliations), readonly(codes), offsets.astype(np.int64), indptr, indices)
    return Csr(indptr, indices)


@njit(cache=True, nogil=True)
def _fill(a_ptr, a_idx, codes, offsets, indptr, indices):  # type: ignore[no-untyped-def]
    for user in range(len(indptr) - 1):
        at = indptr[user]
        for i in range(a_ptr[user], a_ptr[user + 1]):
            indices[at] = a_idx[i]
            at += 1
        for a in range(len(codes)):
            if codes[a, user] >= 0:
                indices[at] = offsets[a] + codes[a, user]
                at += 1


def leaders_of(members: Csr, degrees: Int64) -> Csr:
    """The LEADERS most connected members of each group with more members than that, equals by row; else none.

    members: a row for each group. degrees: friends of each user, int64 [N].
    """
    sizes = members.degrees()
    large = np.flatnonzero(sizes > LEADERS)
    group = np.repeat(large, sizes[large])
    start = np.cumsum(sizes[large]) - sizes[large]
    within = np.arange(len(group)) - np.repeat(start, sizes[large])
    member = members.indices[members.indptr[group] + within]
    order = np.lexsort((member, -degrees[member], group))
    kept = order[within < LEADERS]
    return Csr.from_pairs(members.rows, group[kept], member[kept])


def transpose(rows: Csr, columns: int) -> Csr:
    """Row lists of every column, ascending."""
    indptr = np.zeros(columns + 1, np.int64)
    np.cumsum(np.bincount(rows.indices, minlength=columns), out=indptr[1:])
    indices = np.empty(rows.entries, np.int32)
    _scatter(*pair(rows), indptr[:-1].copy(), indices)
    return Csr(indptr, indices)


@njit(cache=True, nogil=True)
def _scatter(indptr, indices, cursor, out):  # type: ignore[no-untyped-def]
    for row in range(len(indptr) - 1):
        for at in range(indptr[row], indptr[row + 1]):
            out[cursor[indices[at]]] = row
            cursor[indices[at]] += 1


@njit(cache=True, nogil=True)
def friendships_inside(f_ptr, f_idx, g_ptr, g_idx, inside):  # type: ignore[no-untyped-def]
    """Adds to inside[g] the friendships whose two ends are both in group g."""
    for user in range(len(f_ptr) - 1):
        for at in range(f_ptr[user], f_ptr[user + 1]):
            other = f_idx[at]
            if other <= user:
                continue
            i, j = g_ptr[user], g_ptr[other]
            while i < g_ptr[user + 1] and j < g_ptr[other + 1]:
                if g_idx[i] == g_idx[j]:
                    inside[g_idx[i]] += 1
                    i += 1
                    j += 1
                elif g_idx[i] < g_idx[j]:
                    i += 1
                else:
                    j += 1


def _shrunk(ends: Float64, size: Float64, kind: npt.NDArray[np.int64]) -> Float64:
    """Friends inside for a member of each group, drawn towards groups of its kind and size (powers of two)."""
    bucket = kind * 64 + np.log2(np.maximum(size, 1)).astype(np.int64)
    total, people = np.bincount(bucket, ends), np.bincount(bucket, size)
    pooled = (total / np.maximum(people, 1))[bucket]
    return (ends + PRIOR_MEMBERS * pooled) / (size + PRIOR_MEMBERS)


def _sums(rows: Csr, weight: Float32) -> Float32:
    total = np.concatenate([[0.0], np.cumsum(weight[rows.indices], dtype=np.float64)])
    return np.maximum(total[rows.indptr[1:]] - total[rows.indptr[:-1]], 0).astype(np.float32)
