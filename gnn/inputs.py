"""What the encoder sees of a user: profile attributes, affiliations and how connected they are.

Every user is a weighted bag of rows of one feature table: one row for each attribute value, each affiliation and each
bucket of the number of friends and of affiliations. Nothing in it depends on who else is in the graph, so a user who
joined a minute ago is described the same way as everyone else.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Float32, Graph, Int32, Int64, View

ATTRIBUTE_BUCKETS = 1 << 14
"""Table rows of one attribute at most; past it codes are hashed."""
ENTITY_BUCKETS = 1 << 17
"""Table rows of all entities at most; past it entities are hashed."""
COUNT_BUCKETS = 16
"""Table rows for a count: one for each power of two."""
AFFILIATIONS_A_USER = 32
"""Affiliations of a user that are looked at, the most telling first."""
COUNT_WEIGHT = np.float32(0.1)
"""Weight of the count rows, so that being popular describes a user less than where they belong."""


@dataclass(frozen=True)
class Vocabulary:
    """Layout of the feature table: attributes in order, then entities, then friend counts, then affiliation counts."""

    attributes: tuple[str, ...]
    attribute_buckets: tuple[int, ...]
    entity_buckets: int

    @classmethod
    def of(cls, graph: Graph) -> "Vocabulary":
        return cls(
            attributes=graph.attributes,
            attribute_buckets=tuple(min(max(1, c), ATTRIBUTE_BUCKETS) for c in graph.cardinalities),
            entity_buckets=min(len(graph.entity_kind), ENTITY_BUCKETS),
        )

    @classmethod
    def from_json(cls, head: dict[str, Any]) -> "Vocabulary":
        return cls(tuple(head["attributes"]), tuple(head["attribute_buckets"]), int(head["entity_buckets"]))

    def to_json(self) -> dict[str, Any]:
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @property
    def first_entity(self) -> int:
        return sum(self.attribute_buckets)

    @property
    def first_count(self) -> int:
        return self.first_entity + self.entity_buckets

    @property
    def rows(self) -> int:
        return self.first_count + 2 * COUNT_BUCKETS

    def attribute_rows(self, attribute: int, codes: Int32) -> Int64:
        """Table row of each code of one attribute, -1 where missing: int64."""
        buckets = self.attribute_buckets[attribute]
        rows = bucket_of(codes, buckets) + sum(self.attribute_buckets[:attribute])
        return np.where(codes < 0, -1, rows)

    def entity_rows(self, entities: npt.NDArray[Any]) -> Int64:
        """Table row of each entity: int64."""
        return bucket_of(entities, max(1, self.entity_buckets)) + self.first_entity


def bucket_of(values: npt.NDArray[Any], buckets: int) -> Int64:
    """Itself where it fits, else a multiplicative hash into the buckets."""
    wide = values.astype(np.int64)
    hashed = ((wide.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) % np.uint64(buckets)
    return np.where((wide >= 0) & (wide < buckets), wide, hashed.astype(np.int64))


def feature_weights(vocabulary: Vocabulary, graph: Graph, view: View) -> Float32:
    """How telling each row of the feature table is: sqrt(log(N / users who have it)), float32 [rows].

    The dot product of two bags then starts as the information that the two users share. What at most one user has
    weighs nothing: it cannot be shared, and most places have been seen by one user.
    """
    users = np.zeros(vocabulary.rows)
    for attribute, codes in enumerate(graph.attribute_codes):
        rows = vocabulary.attribute_rows(attribute, codes)
        users += np.bincount(rows[rows >= 0], minlength=vocabulary.rows)
    if view.affiliations.entries:
        users += np.bincount(vocabulary.entity_rows(view.affiliations.indices), minlength=vocabulary.rows)
    share = np.clip(users, 1, max(graph.users, 1)) / max(graph.users, 1)
    weights = np.sqrt(np.maximum(-np.log(share), 0.01)).astype(np.float32)
    weights[users < 2] = 0
    weights[vocabulary.first_count :] = COUNT_WEIGHT
    return weights


def feature_bags(
    vocabulary: Vocabulary,
    weights: Float32,
    attribute_codes: Int32,
    affiliations: Csr,
    entity_kind: npt.NDArray[np.int16],
    degrees: Int64,
) -> Csr:
    """The bag of every user: Csr over the rows of the feature table, values = weight, float32.

    attribute_codes int32 [A, N]; affiliations N rows; degrees int64 [N], friends. Attributes together, and the
    affiliations of each kind together, have norm 1.
    """
    parts = [
        _attribute_entries(vocabulary, weights, attribute_codes),
        _affiliation_entries(vocabulary, weights, affiliations, entity_kind),
        _count_entries(vocabulary.first_count, degrees),
        _count_entries(vocabulary.first_count + COUNT_BUCKETS, affiliations.degrees()),
    ]
    user, row, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(user, kind="stable")
    indptr = np.zeros(len(degrees) + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=len(degrees)), out=indptr[1:])
    return Csr(indptr, row[order].astype(np.int32), weight[order])


Entries = tuple[Int64, Int64, Float32]
"""(user row, table row, weight) of bag entries."""


def _attribute_entries(vocabulary: Vocabulary, weights: Float32, codes: Int32) -> Entries:
    if not len(codes):
        return _no_entries()
    rows = np.stack([vocabulary.attribute_rows(a, column) for a, column in enumerate(codes)])
    user = np.nonzero(rows.T >= 0)[0]
    row = rows.T[rows.T >= 0]
    telling = weights[row] > 0
    user, row = user[telling], row[telling]
    return user, row, _unit_in_groups(weights[row], user)


def _affiliation_entries(
    vocabulary: Vocabulary, weights: Float32, affiliations: Csr, entity_kind: npt.NDArray[np.int16]
) -> Entries:
    if not affiliations.entries:
        return _no_entries()
    user = np.repeat(np.arange(affiliations.rows), affiliations.degrees())
    entity = np.asarray(affiliations.indices)
    row = vocabulary.entity_rows(entity)
    kept = _heaviest(user, weights[row], affiliations.indptr)
    kept = kept[weights[row[kept]] > 0]
    user, entity, row = user[kept], entity[kept], row[kept]
    kinds = int(entity_kind.max()) + 1
    return user, row, _unit_in_groups(weights[row], user * kinds + entity_kind[entity])


def _count_entries(first: int, counts: Int64) -> Entries:
    bucket = np.minimum(np.ceil(np.log2(counts + 1.0)).astype(np.int64), COUNT_BUCKETS - 1)
    return np.arange(len(counts)), first + bucket, np.full(len(counts), COUNT_WEIGHT, np.float32)


def _heaviest(user: Int64, weight: Float32, indptr: Int64) -> Int64:
    """Positions of the AFFILIATIONS_A_USER entries of most weight of each user, by user."""
    order = np.lexsort((-weight, user))
    return order[np.arange(len(user)) - indptr[user] < AFFILIATIONS_A_USER]


def _unit_in_groups(weight: Float32, group: Int64) -> Float32:
    """Weights divided by the Euclidean norm of their group."""
    _, dense = np.unique(group, return_inverse=True)
    norm = np.sqrt(np.bincount(dense, weights=weight.astype(np.float64) ** 2))
    return (weight / norm[dense]).astype(np.float32)


def _no_entries() -> Entries:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


@dataclass(frozen=True)
class Inputs:
    """One view as the encoder reads it. bags: see feature_bags. degrees: friends, int64 [N].

    context float32 [N, 3]: log(1 + friends), log(1 + affiliations), share of attributes that are known.
    """

    connections: Csr
    bags: Csr
    degrees: Int64
    affiliation_counts: Int64
    attributes_known: Float32

    @property
    def users(self) -> int:
        return self.connections.rows

    @classmethod
    def of(cls, vocabulary: Vocabulary, weights: Float32, graph: Graph, view: View) -> "Inputs":
        return cls.from_parts(
            vocabulary, weights, graph.attribute_codes, view.affiliations, graph.entity_kind, view.connections
        )

    @classmethod
    def from_parts(
        cls,
        vocabulary: Vocabulary,
        weights: Float32,
        attribute_codes: Int32,
        affiliations: Csr,
        entity_kind: npt.NDArray[np.int16],
        connections: Csr,
    ) -> "Inputs":
        degrees = connections.degrees()
        known = (attribute_codes >= 0).sum(0) / max(1, len(attribute_codes))
        return cls(
            connections=connections,
            bags=feature_bags(vocabulary, weights, attribute_codes, affiliations, entity_kind, degrees),
            degrees=degrees,
            affiliation_counts=affiliations.degrees(),
            attributes_known=known.astype(np.float32),
        )

    def context(self, rows: Any, degrees: npt.NDArray[Any]) -> Float32:
        """Context of some rows, given the number of friends whose messages count: float32 [n, 3]."""
        columns = (np.log1p(degrees), np.log1p(self.affiliation_counts[rows]), self.attributes_known[rows])
        return np.stack(columns, axis=1).astype(np.float32)
