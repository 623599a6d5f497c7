"""What a model of lists is told of people beside their features: the ranker's score of each, the price that exposure
takes, the embedding, and the groups that lists are spread over."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.blob_batches import Users
from infra.errors import UsageError
from infra.model_spec import InputSpec, ModelSpec
from infra.serving_meta import PRICE, ServingHead
from lookup_api.ranking.model_check import ATTRIBUTES, EMBEDDING, OF_LISTS, PRICES, SCORE
from lookup_api.ranking.scorers import Array
from lookup_api.root.gathered import Defaulted, Gathered

NONE = -1
"""In place of a group, after a person's last."""

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


def prices_of(head: ServingHead, users: Users) -> Float32:
    """What exposure takes of each, float32 [n]; nothing in releases that do not say."""
    names = head.user_features
    return users.features[:, names.index(PRICE)] if PRICE in names else np.zeros(len(users.found), np.float32)


@dataclass(frozen=True)
class Listed:
    """One list of people. scores float32 [n]: of whoever ranked them; None where that is nobody. prices float32 [n]: of
    `prices_of`; None for nothing."""

    gathered: Gathered
    scores: Float32 | None
    prices: Float32 | None

    def columns_of(self, spec: ModelSpec) -> tuple[dict[str, Array], Defaulted]:
        """The columns that a model names, and how many values took their default, a person's embedding being one value,
        and so the groups. Raises UsageError for an embedding of another width than the release's."""
        own = [one for one in spec.inputs if one.name in OF_LISTS]
        features = tuple(one for one in spec.inputs if one.name not in OF_LISTS)
        columns: dict[str, Array] = {}
        missing = stale = 0
        if features:
            columns, of_features = self.gathered.columns_of(spec.model_copy(update={"inputs": features}))
            missing, stale = of_features.missing, of_features.stale
        for one in own:
            values, known = self._told(one)
            if one.name != SCORE and one.max_age_s is not None and self.gathered.age_s > one.max_age_s:
                stale += len(known)
                known = np.zeros(len(known), np.bool_)
            else:
                missing += len(known) - int(known.sum())
            columns[one.name] = self._or_default(one, values, known)
        return columns, Defaulted(missing, stale, len(self.gathered) * len(spec.inputs))

    def _told(self, wanted: InputSpec) -> tuple[Array, Bools]:
        """A column, and of whom it is known, bool [n]."""
        users, found = self.gathered.users, self.gathered.found
        if wanted.name == SCORE:
            scores = np.zeros(len(found), np.float32) if self.scores is None else self.scores
            return scores, np.full(len(found), self.scores is not None)
        if wanted.name == PRICES:  # who has no friends pays nothing, as at night
            prices = np.zeros(len(found), np.float32) if self.prices is None else self.prices
            return prices * (self.gathered.viewer[0] > 0), found
        if wanted.name == ATTRIBUTES:
            return groups_of(users, wanted.width), found
        if wanted.width != users.dimensions:
            what = f"{EMBEDDING}: the model takes {wanted.width} numbers, the release has {users.dimensions}"
            raise UsageError(what, "Export the model for embeddings of this release, and push it again.")
        vectors = users.embeddings(np.arange(len(found)))
        return vectors, np.asarray(vectors.any(axis=1), np.bool_)

    @staticmethod
    def _or_default(wanted: InputSpec, values: Array, known: Bools) -> Array:
        column = values.astype(wanted.dtype)
        column[~known] = wanted.default
        return column


def groups_of(users: Users, width: int) -> Int64:
    """Groups of each person, int64 [n, width]: attribute values, then companies and schools, as many as there is room
    for, then NONE. Of two people who share one both have its number; the numbers mean nothing else."""
    people, attributes = users.codes.shape
    kinds = attributes + 1
    codes = users.codes.astype(np.int64)
    values = np.where(codes >= 0, codes * kinds + np.arange(attributes), NONE)
    out = np.full((people, max(width, attributes)), NONE, np.int64)
    out[:, :attributes] = values
    for place in range(people):
        own = users.groups(place)[: max(0, width - attributes)]
        out[place, attributes : attributes + len(own)] = [group * kinds + attributes for group in own]
    return out[:, :width]
