"""Models as the root asks them: the ranker of the release, a routed one of this process, one on a leaf."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from infra.errors import PymkError, StoreError, UsageError
from infra.model_routes import RELEASE, ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import Leaf
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.model_check import ATTRIBUTES, EMBEDDING, refuse_unknown
from lookup_api.ranking.scorers import Array, Float32
from lookup_api.ranking.scoring import RanksPairs
from lookup_api.root.gathered import Defaulted, Gathered
from lookup_api.root.listed import Listed

NOTHING_DEFAULTED = Defaulted()
WIDE = (EMBEDDING, ATTRIBUTES)
"""Inputs of as many columns as a model says."""


class ModelFailed(PymkError):
    """A model did not score; another may."""


class ScoresGathered(Protocol):
    """A model as the root asks it. name: `name@version`, or `release`."""

    @property
    def name(self) -> str: ...

    def of(self, gathered: Gathered, deadline: Deadline) -> tuple[Float32, Defaulted]:
        """Scores float32 [n] and what took defaults. Raises whatever a model may die of."""
        ...

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        """What it scores, by name of the input, [n] each."""
        ...


@dataclass(frozen=True)
class OwnRanker:
    """The ranker of the release, or one that takes its input as it is; None where it could not be opened yet."""

    ranker: RanksPairs | None
    name: str = RELEASE

    def of(self, gathered: Gathered, deadline: Deadline) -> tuple[Float32, Defaulted]:
        if self.ranker is None:
            raise StoreError("the ranking model of the release could not be opened yet")
        return self.ranker.score(gathered.matrix), NOTHING_DEFAULTED

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        return dict(zip(FEATURES, gathered.matrix.T, strict=True))


@dataclass(frozen=True)
class OfMatrix:
    """A model that takes the ranker's input, with defaults of its own where spec says so."""

    name: str
    ranker: RanksPairs
    spec: ModelSpec | None

    def of(self, gathered: Gathered, deadline: Deadline) -> tuple[Float32, Defaulted]:
        matrix, defaulted = (gathered.matrix, NOTHING_DEFAULTED) if self.spec is None else gathered.matrix_of(self.spec)
        return self.ranker.score(matrix), defaulted

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        matrix = gathered.matrix if self.spec is None else gathered.matrix_of(self.spec)[0]
        named = FEATURES if self.spec is None else self.spec.columns
        return {name: column for name, column in zip(FEATURES, matrix.T, strict=True) if name in named}


@dataclass(frozen=True)
class OnLeaf:
    """A model that a leaf hosts."""

    ref: ModelRef
    spec: ModelSpec
    leaf: Leaf

    @property
    def name(self) -> str:
        return str(self.ref)

    def of(self, gathered: Gathered, deadline: Deadline) -> tuple[Float32, Defaulted]:
        columns, defaulted = gathered.columns_of(self.spec)
        return self.leaf.score(self.ref, gathered.with_others(columns, self.spec), deadline), defaulted

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        return _whole(gathered.columns_of(self.spec)[0], self.spec, len(gathered))


@dataclass(frozen=True)
class ListOnLeaf:
    """A model of lists that a leaf hosts. scores float32 [n]: of who ranked the people before; None for nobody. prices
    float32 [n]: what exposure takes of each; None for nothing."""

    ref: ModelRef
    spec: ModelSpec
    leaf: Leaf
    scores: Float32 | None
    prices: Float32 | None

    @property
    def name(self) -> str:
        return str(self.ref)

    def of(self, gathered: Gathered, deadline: Deadline) -> tuple[Float32, Defaulted]:
        columns, defaulted = Listed(gathered, self.scores, self.prices).columns_of(self.spec)
        return self.leaf.score(self.ref, gathered.with_others(columns, self.spec), deadline), defaulted

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        columns, _ = Listed(gathered, self.scores, self.prices).columns_of(self.spec)
        return _whole(columns, self.spec, len(gathered))


def refuse_unreadable(spec: ModelSpec) -> None:
    """Raises UsageError for inputs that the root does not have, or not as so many columns."""
    refuse_unknown(spec, FEATURES)
    for one in spec.inputs:
        if one.width > 1 and one.name not in WIDE:
            raise UsageError(f"{spec.name}: takes {one.name} as {one.width} columns, which is one", "Take it as one.")


def _whole(columns: Mapping[str, Array], spec: ModelSpec, rows: int) -> dict[str, Array]:
    """All columns of a model, those of defaults alone among them."""
    return {one.name: columns[one.name] if one.name in columns else one.defaults(rows) for one in spec.inputs}
