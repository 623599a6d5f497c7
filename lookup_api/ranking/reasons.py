"""Why a candidate is shown: what the two people share, strongest first, at most three reasons a pair.

Common friends come first. What two people share besides weighs as much as it is rare: log2(users / holders) bits, so
a school of fifty says more than a gender. A pair that shares nothing to be named is near in the network, or popular.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Graph, ViewName
from lookup_api.ranking import sources
from lookup_api.ranking.kernels import njit

KINDS = ("mutual_connections", "same_attribute", "same_affiliation", "near_in_network", "popular")
MUTUAL_CONNECTIONS, SAME_ATTRIBUTE, SAME_AFFILIATION, NEAR_IN_NETWORK, POPULAR = range(len(KINDS))
PER_PAIR = 3
MIN_BITS = 1.0
"""What more than half of all users have is no reason."""
NONE = -1

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Reasons:
    """Reasons of n pairs, m in all: pair i has those from offsets[i] to offsets[i + 1], strongest first.

    offsets int32 [n + 1]. kind uint8 [m]: an index into KINDS. name int32 [m]: the attribute, or the affiliation kind
    plus the number of attributes; -1 for none. value int32 [m]: the attribute value (codes of all attributes in
    a row), or the entity plus the number of all codes; -1 for none. count int32 [m]: 0 for none.
    """

    offsets: Int32
    kind: npt.NDArray[np.uint8]
    name: Int32
    value: Int32
    count: Int32


@dataclass(frozen=True)
class ReasonFinder:
    """What reasons are looked up in: one view of a graph, and how rare each shared thing is.

    attribute_bits float32 [codes of all attributes], entity_bits float32 [E]: log2(N / holders).
    """

    graph: Graph
    view: ViewName
    code_starts: Int32
    attribute_bits: npt.NDArray[np.float32]
    entity_bits: npt.NDArray[np.float32]

    @classmethod
    def of(cls, graph: Graph, view: ViewName) -> "ReasonFinder":
        starts = np.concatenate([[0], np.cumsum(graph.cardinalities)]).astype(np.int32)
        held = [
            np.bincount(codes[codes >= 0], minlength=size)
            for codes, size in zip(graph.attribute_codes, graph.cardinalities, strict=True)
        ]
        entities = np.bincount(graph.view(view).affiliations.indices, minlength=len(graph.entity_kind))
        codes = np.concatenate(held) if held else np.zeros(0, np.int64)
        return cls(graph, view, starts, _bits(graph.users, codes), _bits(graph.users, entities))

    def find(self, user: Int32, candidate: Int32, bits: npt.NDArray[np.uint8]) -> Reasons:
        """Reasons of pairs: user and candidate rows [n], source bits [n]."""
        graph, view = self.graph, self.graph.view(self.view)
        n = len(user)
        found = np.zeros(n, np.uint8)
        kind, name = np.zeros((n, PER_PAIR), np.uint8), np.full((n, PER_PAIR), NONE, np.int32)
        value, count = np.full((n, PER_PAIR), NONE, np.int32), np.zeros((n, PER_PAIR), np.int32)
        friends, entities, unseen = view.connections, view.affiliations, graph.excluded
        _collect(
            user, candidate, bits,
            friends.indptr, friends.indices, entities.indptr, entities.indices, unseen.indptr, unseen.indices,
            graph.attribute_codes, self.code_starts, self.attribute_bits,
            graph.entity_kind, self.entity_bits, len(graph.kinds),
            found, kind, name, value, count,
        )  # fmt: skip
        kept = np.arange(PER_PAIR) < found[:, None]
        offsets = np.zeros(n + 1, np.int32)
        np.cumsum(found, out=offsets[1:])
        return Reasons(offsets, kind[kept], name[kept], value[kept], count[kept])


def _bits(users: int, holders: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.log2(max(users, 1) / np.maximum(holders, 1)).astype(np.float32)


@njit(cache=True, nogil=True)
def common_friends(indptr, indices, hidden_ptr, hidden_idx, u, v):  # type: ignore[no-untyped-def]
    """Friends of both u and v, without those hidden from u."""
    i, j, end_i, end_j = indptr[u], indptr[v], indptr[u + 1], indptr[v + 1]
    h, end_h = hidden_ptr[u], hidden_ptr[u + 1]
    count = 0
    while i < end_i and j < end_j:
        a, b = indices[i], indices[j]
        if a == b:
            while h < end_h and hidden_idx[h] < a:
                h += 1
            if h == end_h or hidden_idx[h] != a:
                count += 1
            i += 1
            j += 1
        elif a < b:
            i = _skip_to(indices, i, end_i, b)
        else:
            j = _skip_to(indices, j, end_j, a)
    return count


@njit(cache=True, nogil=True)
def _skip_to(indices, at, end, wanted):  # type: ignore[no-untyped-def]
    """First place from `at` whose entry is not below `wanted`: galloping, so that a hub costs a logarithm."""
    step = 1
    low = at
    while low + step < end and indices[low + step] < wanted:
        low += step
        step *= 2
    high = min(low + step, end)
    low += 1
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _keep(place, n, strength, k, a, v, c, weights, kind, name, value, count):  # type: ignore[no-untyped-def]
    """Inserts a reason into the strongest PER_PAIR of a pair, of which there are n; returns how many there are."""
    at = n
    while at > 0 and weights[at - 1] < strength:
        at -= 1
    if at == PER_PAIR:
        return n
    for j in range(min(n, PER_PAIR - 1), at, -1):
        weights[j] = weights[j - 1]
        kind[place, j], name[place, j] = kind[place, j - 1], name[place, j - 1]
        value[place, j], count[place, j] = value[place, j - 1], count[place, j - 1]
    weights[at] = strength
    kind[place, at], name[place, at], value[place, at], count[place, at] = k, a, v, c
    return min(n + 1, PER_PAIR)


@njit(cache=True, nogil=True)
def _collect(  # type: ignore[no-untyped-def]
    user, candidate, bits, f_ptr, f_idx, e_ptr, e_idx, x_ptr, x_idx, codes, code_starts, code_bits,
    entity_kind, entity_bits, kinds, found, kind, name, value, count,
):  # fmt: skip
    weights = np.empty(PER_PAIR, np.float32)
    attributes = len(codes)
    all_codes = code_starts[attributes]
    best = np.empty(kinds, np.int32)
    shared = np.empty(kinds, np.int32)
    for p in range(len(user)):
        u, v = user[p], candidate[p]
        n = 0
        common = common_friends(f_ptr, f_idx, x_ptr, x_idx, u, v)
        if common > 0:
            n = _keep(p, n, np.inf, MUTUAL_CONNECTIONS, NONE, NONE, common, weights, kind, name, value, count)
        for a in range(attributes):
            code = codes[a, u]
            if code >= 0 and code == codes[a, v] and code_bits[code_starts[a] + code] >= MIN_BITS:
                at = code_starts[a] + code
                n = _keep(p, n, code_bits[at], SAME_ATTRIBUTE, a, at, 0, weights, kind, name, value, count)
        if _shared_entities(u, v, e_ptr, e_idx, entity_kind, entity_bits, best, shared):
            for k in range(kinds):
                if shared[k] and entity_bits[best[k]] >= MIN_BITS:
                    many = shared[k] if shared[k] > 1 else 0
                    n = _keep(
                        p, n, entity_bits[best[k]], SAME_AFFILIATION, attributes + k, all_codes + best[k], many,
                        weights, kind, name, value, count,
                    )  # fmt: skip
        if n == 0:
            near = bits[p] & ~sources.POPULAR != 0
            degree = 0 if near else f_ptr[v + 1] - f_ptr[v]
            weak = NEAR_IN_NETWORK if near else POPULAR
            n = _keep(p, n, 0.0, weak, NONE, NONE, degree, weights, kind, name, value, count)
        found[p] = n


@njit(cache=True, nogil=True)
def _shared_entities(u, v, ptr, idx, entity_kind, entity_bits, best, shared):  # type: ignore[no-untyped-def]
    """Counts shared entities by kind and notes the rarest of each; false when there are none."""
    i, j, end_i, end_j = ptr[u], ptr[v], ptr[u + 1], ptr[v + 1]
    some = False
    while i < end_i and j < end_j:
        a, b = idx[i], idx[j]
        if a == b:
            if not some:
                shared[:] = 0
                some = True
            k = entity_kind[a]
            if shared[k] == 0 or entity_bits[a] > entity_bits[best[k]]:
                best[k] = a
            shared[k] += 1
            i += 1
            j += 1
        elif a < b:
            i = _skip_to(idx, i, end_i, b)
        else:
            j = _skip_to(idx, j, end_j, a)
    return some
