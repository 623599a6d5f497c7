"""The ladder: where an answer can come from, best first. The first rung that has somebody to show answers.

A rung that fails, is late or is left alone by its breaker is passed over, and the answer is marked degraded. Rules run
last, on every rung: a rung offers a ranking and the people this user must not see in it, and nothing is shown that did
not pass them and the live facts.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from infra.blobs import FirstPage, Ranking, decode_ranking
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ladder_metrics import ANSWERED, EMPTY, FAILED, LATE, OPEN, SPARED, LadderMetrics
from lookup_api.load import FULL
from lookup_api.metrics import Metrics
from lookup_api.ranking.pages import Shown, cut, shown
from lookup_api.ranking.rules import EXCLUDE_PARAMETER, SELF, Bar, pick
from lookup_api.served_release import ServedRelease

log = logging.getLogger(__name__)

NOBODY, NO_CACHE = "none", "none"
NOTHING = Shown(b"[]", ())


class Facts(Protocol):
    """What must be known of a viewer: see infra.live_facts.ViewerFacts."""

    @property
    def barred(self) -> Mapping[int, str]: ...
    @property
    def hidden(self) -> Mapping[int, str]: ...
    @property
    def fatigue(self) -> Mapping[int, int]: ...
    @property
    def viewer_hidden(self) -> bool: ...
    @property
    def version(self) -> int: ...
    @property
    def hidden_version(self) -> int: ...


@dataclass(frozen=True, slots=True)
class NoFacts:
    """The facts of somebody of whom none were recorded."""

    barred: Mapping[int, str] = field(default_factory=dict)
    hidden: Mapping[int, str] = field(default_factory=dict)
    fatigue: Mapping[int, int] = field(default_factory=dict)
    viewer_hidden: bool = False
    version: int = 0
    hidden_version: int = 0


@dataclass(slots=True)
class Query:
    """A parsed request. limit: 1 .. 100."""

    user_id: int
    limit: int
    exclude: frozenset[int]
    explain: bool


@dataclass(slots=True)
class Ask:
    """A request on its way down the ladder. level: what it may cost by the load of the worker (lookup_api.load)."""

    query: Query
    release: ServedRelease
    facts: Facts
    deadline: Deadline
    level: int = FULL


Evidence = Mapping[int, tuple[int, Mapping[str, float]]]
"""Person -> source bits, and what the ranker saw of the pair by name."""


RankedBy = tuple[str, str]
"""A routed model, `name@version`, and its variant: stable or canary."""


@dataclass(slots=True)
class Offer:
    """What a rung would show, before the rules.

    blob: the ranking as it is stored, empty where it is `decoded` already. page: its first page, where it has one.
    bars: people this rung knows must not be shown. degraded: made without a part, named in `without`. passing: made
    with less than there is, or not by whom it was to be, and so not to be kept. evidence: what explain tells, where the
    rung knows more than the release's tables. by: the routed model that ranked, and which variant it is.
    """

    blob: bytes
    page: FirstPage | None = None
    bars: tuple[Bar, ...] = ()
    cache: str = NO_CACHE
    degraded: bool = False
    passing: bool = False
    without: tuple[str, ...] = ()
    evidence: Evidence | None = None
    decoded: Ranking | None = None
    by: RankedBy | None = None

    @property
    def ranking(self) -> Ranking:
        """Raises CorruptArtifact."""
        if self.decoded is None:
            self.decoded = decode_ranking(self.blob)
        return self.decoded


class Spared(Exception):
    """A rung could have answered, but the worker is too busy for it."""


class Rung(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def breaker(self) -> Breaker: ...

    def offer(self, ask: Ask) -> Offer | None:
        """A ranking, or None where this rung has nothing for the user. Raises when it fails, is late or is spared."""
        ...


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one rung, for explain."""

    rung: str
    outcome: str
    ms: float
    without: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """source: the rung that answered, or none. degraded: a rung above it failed, or it lacked a part."""

    source: str
    offer: Offer | None
    shown: Shown
    degraded: bool
    tried: list[Tried]


@dataclass(frozen=True)
class Ladder:
    """rungs: best first. caps: people of one group among the shown, in the order of rules.CAPPED."""

    rungs: Sequence[Rung]
    caps: tuple[int, ...]
    fatigue_places: int
    metrics: Metrics
    counts: LadderMetrics

    def climb(self, ask: Ask) -> Outcome:
        """The answer of the first rung that has somebody to show; source none when no rung has."""
        bars = self._bars(ask)
        degraded = False
        tried: list[Tried] = []
        for rung in self.rungs:
            start = time.perf_counter()
            offer, found, outcome = self._asked(rung, ask, bars)
            self.counts.rung(rung.source, outcome)
            if ask.query.explain:
                without = offer.without if offer else ()
                tried.append(Tried(rung.source, outcome, (time.perf_counter() - start) * 1e3, without))
            if outcome == ANSWERED and offer is not None:
                return Outcome(rung.source, offer, found, degraded or offer.degraded, tried)
            degraded = degraded or outcome != EMPTY or (offer is not None and offer.degraded)
        return Outcome(NOBODY, None, NOTHING, degraded, tried)

    def _asked(self, rung: Rung, ask: Ask, bars: tuple[Bar, ...]) -> tuple[Offer | None, Shown, str]:
        """What a rung offers, what the rules leave of it, and what became of it."""
        breaker = rung.breaker
        if not breaker.allows():
            return None, NOTHING, OPEN
        try:
            offer = rung.offer(ask)
            found = NOTHING if offer is None else self._shown(offer, ask, bars)
        except Spared:
            return None, NOTHING, SPARED
        except Exception as error:  # whatever a rung died of, the next one may still answer
            self._failed(rung, error)
            return None, NOTHING, LATE if isinstance(error, TooLate) else FAILED
        if offer is not None and offer.cache == NO_CACHE:  # who had nothing to do, or found it done, proves nothing
            breaker.succeeded()
        return offer, found, ANSWERED if found.ids else EMPTY

    def _failed(self, rung: Rung, error: Exception) -> None:
        was_open = rung.breaker.open
        rung.breaker.failed()
        self.metrics.rung_failures.labels(rung.source).inc()
        if not was_open:
            log.error("rung %s failed: %s", rung.source, error, exc_info=None if isinstance(error, TooLate) else error)

    def _shown(self, offer: Offer, ask: Ask, bars: tuple[Bar, ...]) -> Shown:
        bars, limit, fatigue = bars + offer.bars, ask.query.limit, ask.facts.fatigue
        found = None
        if offer.page is not None and not fatigue:
            found = cut(offer.page, limit, bars, self.caps)
        if found is None:
            picked = pick(offer.ranking, limit, bars, self.caps, fatigue, self.fatigue_places)
            found = shown(offer.ranking, picked)
        for rule, number in found.dropped.items():
            self.metrics.excluded.labels(rule).inc(number)
        if found.demoted:
            self.metrics.demoted.inc(found.demoted)
        return found

    def _bars(self, ask: Ask) -> tuple[Bar, ...]:
        own: dict[int, str] = dict.fromkeys(ask.query.exclude, EXCLUDE_PARAMETER) if ask.query.exclude else {}
        own[ask.query.user_id] = SELF
        facts = ask.facts
        found: tuple[Bar, ...] = (own, ask.release.departed) if ask.release.departed else (own,)
        if facts.barred:
            found += (facts.barred,)
        return (*found, facts.hidden) if facts.hidden else found
