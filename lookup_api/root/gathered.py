"""What models are told of one viewer and some people: read once, in one batch, and shared by all models of a request.

A value is what the release stores, or what is measured now from what it stores. One that is missing, or older than a
model allows, is the model's own default.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from infra.blob_batches import Users
from infra.model_spec import InputSpec, ModelSpec
from lookup_api.ladder import Ask
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.live import (
    KNOWN_LIVE,
    PairFacts,
    forget_stale,
    fresh_share,
    measured_live,
    newcomer_features,
    shared_attributes,
)
from lookup_api.ranking.scorers import Array
from lookup_api.root.people import People, Viewer
from lookup_api.served_release import ServedRelease

VIEWER_PREFIX, CANDIDATE_PREFIX = "viewer_", "candidate_"
KNOWN_OF_NEWCOMERS = ("degree", "volume", "friend_degree")
"""User features of somebody the release does not know that the live facts tell."""
_PLACE = {name: at for at, name in enumerate(FEATURES)}

Bools = npt.NDArray[np.bool_]
Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Defaulted:
    """Values of a model's inputs that took its default: those that nobody knows, and those too old for it. values: of
    all inputs and rows together."""

    missing: int = 0
    stale: int = 0
    values: int = 0


@dataclass(frozen=True)
class Gathered:
    """pairs float16 [n, P], viewer float32 [U], candidates float32 [n, U]: features. stored, found bool [n]: whose pair
    features are stored, whom the release knows. viewer_known: the release knows the viewer; viewer_placed: and where it
    is among the embeddings. age_s: of what is stored."""

    users: Users
    pairs: Float16
    viewer: Float32
    candidates: Float32
    stored: Bools
    found: Bools
    viewer_known: bool
    viewer_placed: bool
    age_s: float

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def matrix(self) -> Float32:
        """The ranker's input float32 [n, F], with what is missing as the night takes it."""
        return assemble(self.pairs, self.viewer, self.candidates)

    def columns_of(self, spec: ModelSpec) -> tuple[dict[str, Array], Defaulted]:
        """The columns [n] that a model names, each of its type, and how many values took their default. A column of
        defaults alone is left out: who scores knows them."""
        columns: dict[str, Array] = {}
        missing = stale = 0
        for one in spec.inputs:
            if self._is_stale(one):
                stale += len(self)
                continue
            absent = self.missing(one.name)
            lacking = 0 if absent is None else int(absent.sum())
            missing += lacking
            if absent is None or lacking < len(self):
                columns[one.name] = self._column(one, absent)
        if not columns:  # of nothing at all nobody would know how many rows to score
            columns[spec.inputs[0].name] = spec.inputs[0].defaults(len(self))
        return columns, Defaulted(missing, stale, len(self) * len(spec.inputs))

    def missing(self, name: str) -> Bools | None:
        """Of whom a feature is not known, bool [n]; None where it is of all."""
        if name.startswith(VIEWER_PREFIX):
            known = self.viewer_known or name.removeprefix(VIEWER_PREFIX) in KNOWN_OF_NEWCOMERS
            return None if known else np.ones(len(self), np.bool_)
        if name not in PAIR_FEATURES:  # of the candidate, or derived from what the candidate is
            return self._strangers
        if name not in KNOWN_LIVE:
            return self._not_stored
        alone = (name == "embedding_dot" and not self.viewer_placed) or (
            name == "shared_attributes" and not self.viewer_known
        )
        return self._not_stored if alone else self._not_measured

    def _is_stale(self, wanted: InputSpec) -> bool:
        return wanted.max_age_s is not None and self.age_s > wanted.max_age_s

    @cached_property
    def _strangers(self) -> Bools | None:
        return _some(~self.found)

    @cached_property
    def _not_stored(self) -> Bools | None:
        return _some(~self.stored)

    @cached_property
    def _not_measured(self) -> Bools | None:
        return _some(~(self.stored | self.found))

    def with_others(self, columns: dict[str, Array], spec: ModelSpec) -> dict[str, Array]:
        """A model's columns, and as they are all features that it does not name: of what is there a leaf takes what it
        needs."""
        own = spec.columns
        return {name: column for name, column in self._features.items() if name not in own} | columns

    @cached_property
    def _features(self) -> dict[str, Array]:
        return dict(zip(FEATURES, self.by_column, strict=True))

    @cached_property
    def by_column(self) -> Float32:
        """The ranker's input by column, float32 [F, n]."""
        return np.ascontiguousarray(self.matrix.T)

    def _column(self, wanted: InputSpec, absent: Bools | None) -> Array:
        column = self.by_column[_PLACE[wanted.name]]
        if wanted.type != "float32":
            column = column.astype(wanted.dtype)
        return column if absent is None else np.where(absent, wanted.dtype.type(wanted.default), column)


def gather(
    ask: Ask,
    viewer: Viewer,
    vector: Float32,
    people: People,
    old_after_s: float,
    counts: LadderMetrics,
    users: Users | None = None,
) -> Gathered:
    """What is known of the people. vector float32 [D]: Viewer.vector. old_after_s: age of a release from which what
    changes by the day is forgotten. users: what is stored of the people, which is read in one batch if not given."""
    users = ask.release.users(people.ids.tolist()) if users is None else users
    age_s = time.time() - ask.release.as_of_s
    mine, theirs = _user_features(viewer, users, age_s > old_after_s, counts)
    pairs = _pairs(ask.release, viewer, vector, people, users, mine)
    stored = people.stored >= 0
    if not stored.all():
        counts.defaulted.labels("pair", "missing").inc(len(stored) - int(stored.sum()))
    return Gathered(users, pairs, mine, theirs, stored, users.found, viewer.known, bool(vector.any()), age_s)


def _pairs(
    release: ServedRelease, viewer: Viewer, vector: Float32, people: People, users: Users, mine: Float32
) -> Float16:
    """Pair features float16 [n, P]: those stored, and of the others what the tables tell. mine: the viewer's user
    features."""
    out = np.empty((len(people), len(PAIR_FEATURES)), np.float16)
    is_stored = people.stored >= 0
    if viewer.stored is not None and is_stored.any():
        out[is_stored] = viewer.stored.features[people.stored[is_stored]]
    others = np.flatnonzero(~is_stored)
    if len(others):
        cosine = people.cosine[others].copy()
        unknown = np.isnan(cosine)
        if unknown.any():
            cosine[unknown] = users.embeddings(others[unknown]) @ vector
        shared = shared_attributes(viewer.user.codes[0], users.codes[others])
        facts = PairFacts(people.common[others], people.allocation[others], cosine, shared)
        fresh = fresh_share(viewer.stored.features) if viewer.stored else 1.0
        theirs = users.features[others, : len(USER_FEATURES)]
        out[others] = measured_live(facts, mine, theirs, _entries(release, mine), fresh)
    return out


def _user_features(viewer: Viewer, users: Users, old: bool, counts: LadderMetrics) -> tuple[Float32, Float32]:
    width = len(USER_FEATURES)
    mine, theirs = viewer.user.features[0, :width], users.features[:, :width]
    if not viewer.known:
        mine = newcomer_features(viewer.circle.lists.friends.tolist() if viewer.circle else [])
        counts.defaulted.labels("viewer", "missing").inc()
    missing = len(users.found) - int(users.found.sum())
    if missing:
        counts.defaulted.labels("candidate", "missing").inc(missing)
    if old:
        counts.defaulted.labels("recency", "stale").inc(len(theirs))
        return forget_stale(mine), forget_stale(theirs)
    return mine, theirs


def _entries(release: ServedRelease, mine: Float32) -> int:
    """Entries of everyone's friend lists. Where the release does not say, as if all had as many friends as the viewer,
    whose user features float32 [U] are given."""
    return release.head.entries or release.head.users * max(int(mine[0]), 1)


def _some(absent: Bools) -> Bools | None:
    return absent if absent.any() else None
