"""Models as the root asks them: the ranker of the release, a routed one of this process, one on a leaf."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from infra.errors import PymkError, StoreError, UsageError
from infra.model_routes import RELEASE, ModelRef
from infra.model_spec import ModelSpec
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import Leaf, Timed
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


class Told(NamedTuple):
    """scores float32 [n], and what took defaults. ms: that the model's own call took; 0 of the release's ranker."""

    scores: Float32
    defaulted: Defaulted = NOTHING_DEFAULTED
    ms: float = 0.0


class RanksColumns(Protocol):
    """A routed model, wherever it is open."""

    @property
    def spec(self) -> ModelSpec: ...

    def timed(self, columns: Mapping[str, Array], deadline: Deadline) -> Timed:
        """Scores of columns by name, where the default stands for what is left out. Raises whatever it dies of."""
        ...


class ScoresGathered(Protocol):
    """A model as the root asks it. name: `name@version`, or `release`."""

    @property
    def name(self) -> str: ...

    def of(self, gathered: Gathered, deadline: Deadline) -> "Told":
        """Raises whatever a model may die of."""
        ...

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        """What it scores, by name of the input, [n] each."""
        ...


@dataclass(frozen=True)
class OwnRanker:
    """The ranker of the release, or one that takes its input as it is; None where it could not be opened yet."""

    ranker: RanksPairs | None
    name: str = RELEASE

    def of(self, gathered: Gathered, deadline: Deadline) -> Told:
        if self.ranker is None:
            raise StoreError("the ranking model of the release could not be opened yet")
        return Told(self.ranker.score(gathered.matrix))

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        return dict(zip(FEATURES, gathered.matrix.T, strict=True))


@dataclass(frozen=True)
class Routed:
    """A model that a surface is routed to."""

    name: str
    model: RanksColumns

    def of(self, gathered: Gathered, deadline: Deadline) -> Told:
        columns, defaulted = gathered.columns_of(self.model.spec)
        scores, ms = self.model.timed(gathered.with_others(columns, self.model.spec), deadline)
        return Told(scores, defaulted, ms)

    def given(self, gathered: Gathered) -> Mapping[str, Array]:
        spec = self.model.spec
        return _whole(gathered.columns_of(spec)[0], spec, len(gathered))


@dataclass(frozen=True)
class OnLeaf:
    """A model that a leaf hosts."""

    ref: ModelRef
    spec: ModelSpec
    leaf: Leaf

    @property
    def name(self) -> str:
        return str(self.ref)

    def of(self, gathered: Gathered, deadline: Deadline) -> Told:
        columns, defaulted = gathered.columns_of(self.spec)
        scores, ms = self.leaf.timed(self.ref, gathered.with_others(columns, self.spec), deadline)
        return Told(scores, defaulted, ms)

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

    def of(self, gathered: Gathered, deadline: Deadline) -> Told:
        columns, defaulted = Listed(gathered, self.scores, self.prices).columns_of(self.spec)
        scores, ms = self.leaf.timed(self.ref, gathered.with_others(columns, self.spec), deadline)
        return Told(scores, defaulted, ms)

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
