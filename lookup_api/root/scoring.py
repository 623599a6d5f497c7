"""Has models score what was gathered: each gets the columns that it names, and one that fails takes none with it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from infra.errors import NotFound, PymkError, UsageError
from infra.model_routes import CANARY, ModelRef
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves.protocol import Leaf
from lookup_api.logs import Sparing
from lookup_api.ranking.scorers import Float32
from lookup_api.ranking.scoring import RanksPairs
from lookup_api.root.asked_models import (
    NOTHING_DEFAULTED,
    ListOnLeaf,
    ModelFailed,
    OnLeaf,
    OwnRanker,
    ScoresGathered,
    Told,
)
from lookup_api.root.canaries import Watched
from lookup_api.root.catalog import Catalog, Named
from lookup_api.root.gathered import Defaulted, Gathered
from lookup_api.root.root_metrics import FAILED, LATE, NO_MODEL, UNKNOWN, RootMetrics

log = logging.getLogger(__name__)

OF_DEADLINE = 0.5
"""The share of a request's time in which it is looked up what names mean; models that are known have the rest."""


def nobody_watched(surface: str, model: ModelRef) -> None:
    """No canary is taken off."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one name. model: who scored, `name@version` or `release`. scores float32 [n]; None where it
    failed, and why says how: failed, late or unknown. ms: that it took."""

    asked: str
    model: str
    scores: Float32 | None = None
    defaulted: Defaulted = NOTHING_DEFAULTED
    why: str = ""
    ms: float = 0.0


class Root:
    """Safe to use from any thread."""

    def __init__(
        self,
        catalog: Catalog,
        leaf: Leaf,
        counts: RootMetrics,
        at_once: int = 1,
        watched: Callable[[str, ModelRef], Watched | None] = nobody_watched,
    ) -> None:
        """at_once: models of all requests that are asked at the same time, where leaves are other processes; 1 asks one
        after the other. watched: who counts what the canary of a surface does."""
        self.catalog = catalog
        self.leaf = leaf
        self._counts = counts
        self._watched = watched
        self._pool = ThreadPoolExecutor(at_once, "root") if at_once > 1 else None
        self._sparing = Sparing(log)

    def named(
        self, asked: Sequence[str], user_id: int, deadline: Deadline, wanted: str | None = None
    ) -> list[Named | Scored]:
        """Who scores for each name, in order; where that cannot be told, what became of it. wanted: the variant, where
        clients choose."""
        soon = deadline.within(OF_DEADLINE * deadline.left_s)
        return [self._told_of(name, partial(self.catalog.named, name, user_id, soon, wanted)) for name in asked]

    def score(
        self,
        named: Sequence[Named | Scored],
        gathered: Gathered,
        own: RanksPairs | None,
        deadline: Deadline,
        prices: Float32 | None = None,
    ) -> list[Scored]:
        """What each has to say, in order; a model that is named twice scores once, and so does the ranker whose scores
        models of lists take. own: the ranker of the release. prices float32 [n]: what exposure takes of each person;
        None for nothing."""
        known = [one for one in named if isinstance(one, Named)]
        models = {one.model: one for one in known}
        lists = {name: one for name, one in models.items() if one.is_of_lists}
        rows = {name: one for name, one in models.items() if name not in lists}
        rows |= {one.ranker.model: one.ranker for one in lists.values() if one.ranker}
        guards = {one.model: guard for one in known if (guard := self._guard(one, gathered))}
        found = self._all({name: self._of(one, own) for name, one in rows.items()}, gathered, deadline, guards)
        ready = {}
        for name, one in lists.items():
            before = found[one.ranker.model] if one.ranker else None
            if before is not None and before.scores is None:
                self._counts.failed(name, before.why)
                found[name] = Scored(name, name, why=before.why)
            else:
                ready[name] = self._of_list(one, before, prices)
        found |= self._all(ready, gathered, deadline, guards)
        return [replace(found[one.model], asked=one.asked) if isinstance(one, Named) else one for one in named]

    def stood_in_for(
        self,
        named: Sequence[Named | Scored],
        scored: Sequence[Scored],
        user_id: int,
        gathered: Gathered,
        own: RanksPairs | None,
        deadline: Deadline,
        prices: Float32 | None = None,
    ) -> tuple[list[Named | Scored], list[Scored]]:
        """The same names and scores, in order, where the stable variant of a surface scores in place of a canary that
        did not, in the time that is left."""
        who, told = list(named), list(scored)
        at = [n for n, one in enumerate(named) if _is_canary(one) and scored[n].scores is None]
        surfaces = [named[n].asked for n in at]
        stable = [self._told_of(one, partial(self.catalog.stable, one, user_id, deadline)) for one in surfaces]
        for n, one, found in zip(at, stable, self.score(stable, gathered, own, deadline, prices), strict=True):
            who[n], told[n] = one, found
        return who, told

    def _all(
        self,
        asks: Mapping[str, ScoresGathered],
        gathered: Gathered,
        deadline: Deadline,
        guards: Mapping[str, Watched],
    ) -> dict[str, Scored]:
        """What each has to say: at once, where leaves are other processes."""
        if self._pool is None or len(asks) < 2:
            return {name: self._ask(model, gathered, deadline, guards.get(name)) for name, model in asks.items()}
        gathered.by_column  # noqa: B018 — once, before several threads would each do it
        futures = {
            name: self._pool.submit(self._ask, model, gathered, deadline, guards.get(name))
            for name, model in asks.items()
        }
        return {name: future.result() for name, future in futures.items()}

    def _ask(self, model: ScoresGathered, gathered: Gathered, deadline: Deadline, guard: Watched | None) -> Scored:
        """One model's scores. A failure is counted and logged, and no exception."""
        start = time.perf_counter()
        try:
            with guard.scoring() if guard else nullcontext():
                told = scored(model, gathered, deadline, self._counts)
        except (ModelFailed, TooLate) as error:
            return self._failed(model.name, outcome_of(error), error)
        ms = (time.perf_counter() - start) * 1e3
        if guard:
            guard.scored(told.ms, told.scores)
        return Scored(model.name, model.name, told.scores, told.defaulted, ms=ms)

    def _guard(self, named: Named, gathered: Gathered) -> Watched | None:
        """Of a surface's canary, where it takes as many people."""
        if named.variant != CANARY or named.ref is None or named.spec is None:
            return None
        if named.is_of_lists and len(gathered) > named.spec.resources.max_rows:
            return None
        return self._watched(named.asked, named.ref)

    def one_by_one(self, leaf: Leaf) -> "Root":
        """The same models on a leaf, asked one after the other, for whom nobody waits: they take no place of those who
        are waited for, and no canary is judged by their times. It is not to be closed, but for the leaf."""

        def watched(surface: str, model: ModelRef) -> Watched | None:
            found = self._watched(surface, model)
            return found and replace(found, is_timed=False)

        return Root(self.catalog, leaf, self._counts, watched=watched)

    def close(self) -> None:
        self.catalog.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.leaf.close()

    def _of(self, named: Named, own: RanksPairs | None) -> ScoresGathered:
        if named.ref is None or named.spec is None:
            return OwnRanker(own)
        return OnLeaf(named.ref, named.spec, self.leaf)

    def _of_list(self, named: Named, before: Scored | None, prices: Float32 | None) -> ScoresGathered:
        assert named.ref is not None
        assert named.spec is not None
        return ListOnLeaf(named.ref, named.spec, self.leaf, before.scores if before else None, prices)

    def _told_of(self, asked: str, who: Callable[[], Named]) -> Named | Scored:
        try:
            return who()
        except PymkError as error:
            why = UNKNOWN if isinstance(error, UsageError) else outcome_of(error)
            self._counts.failed(NO_MODEL, why)
            return self._failed(asked, why, error)

    def _failed(self, name: str, why: str, error: Exception) -> Scored:
        self._sparing.warning("a model gave no scores", model=name, why=why, error=str(error))
        return Scored(name, name, why=why)


def _is_canary(one: Named | Scored) -> bool:
    return isinstance(one, Named) and one.variant == CANARY


def scored(model: ScoresGathered, gathered: Gathered, deadline: Deadline, counts: RootMetrics) -> Told:
    """A model's scores, all of them finite; counted.

    Raises TooLate where the time was over before, and ModelFailed for whatever the model dies of.
    """
    deadline.check(model.name)
    start = time.perf_counter()
    try:
        told = model.of(gathered, deadline)
        scores = told.scores
        if scores.shape != (len(gathered),) or not np.isfinite(scores).all():
            raise PymkError(f"scores {list(scores.shape)} of {len(gathered)} people, or some that are not finite")
    except Exception as error:  # whatever a model dies of, others may score
        counts.failed(model.name, outcome_of(error))
        raise ModelFailed(f"{model.name}: {error}") from error
    counts.answered(model.name, time.perf_counter() - start, told.defaulted)
    if counts.saw is not None:
        counts.saw(model, gathered, scores)
    return told


def outcome_of(error: BaseException) -> str:
    """How a model failed: late, unknown or failed."""
    cause = error.__cause__ if isinstance(error, ModelFailed) else error
    if isinstance(cause, TooLate):
        return LATE
    return UNKNOWN if isinstance(cause, NotFound) else FAILED
