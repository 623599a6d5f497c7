"""Scores people for one viewer by the models that a caller names. Knows nothing of HTTP."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.blob_batches import Users
from infra.settings import LadderSettings
from lookup_api.circle import bars_by_night, circle_of
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, Facts, Query
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.load import NO_LIVE
from lookup_api.problems import Problem, overloaded
from lookup_api.root.gathered import Gathered, gather
from lookup_api.root.listed import prices_of
from lookup_api.root.people import People, Viewer
from lookup_api.root.root_metrics import LATE, UNKNOWN
from lookup_api.root.scoring import Root, Scored
from lookup_api.score_request import ScoreQuery
from lookup_api.served_release import ServedRelease
from lookup_api.shadows import Shadows

DAY_S = 86_400.0
AGAIN_S = 1.0
"""For a look at whom the rules keep out by now."""

Bools = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]


class NobodyScored(Problem):
    """No model answered (503). late: one of them for lack of time."""

    late = False


@dataclass(frozen=True)
class Scoring:
    """Scores people for one viewer by the models that a caller names. Thread-safe."""

    root: Root
    counts: LadderMetrics
    settings: LadderSettings
    retry_after_s: int
    shadows: Shadows | None = None

    def answer(
        self, query: ScoreQuery, release: ServedRelease, facts: Facts | None, deadline: Deadline, level: int
    ) -> dict[str, Any]:
        """Values that orjson takes, but for the request id. People whom the rules keep from the viewer have no score.

        facts: None where they cannot be read: then nobody has one. Raises Problem: 503 where the worker is too busy to
        rank live, or no model answers; 404 where there is no such model.
        """
        if level >= NO_LIVE:
            raise overloaded(self.retry_after_s)
        named = self.root.named(query.models, query.user_id, deadline, query.variant)
        allowed, found = np.zeros(len(query.candidate_ids), np.bool_), None
        if facts is not None and not facts.viewer_hidden:
            ask = Ask(Query(query.user_id, 0, frozenset(), False), release, facts, deadline, level)
            allowed, found = self._gathered(ask, query)
        if found is None:
            nothing = np.zeros(0, np.float32)
            scored = [one if isinstance(one, Scored) else Scored(one.asked, one.model, nothing) for one in named]
        else:
            own = release.live.model if release.live is not None else None
            prices = prices_of(release.head, found.users)
            scored = self.root.score(named, found, own, deadline, prices)
            if query.variant is None:  # who asks for the canary is told that it failed
                named, scored = self.root.stood_in_for(named, scored, query.user_id, found, own, deadline, prices)
            if self.shadows is not None:
                self.shadows.follow(named, scored, found, release.release_id, level)
        self._refuse_nothing(scored)
        return _told(query, release, scored, allowed, facts is None)

    def _gathered(self, ask: Ask, query: ScoreQuery) -> tuple[Bools, Gathered | None]:
        """Who may have a score, bool [n], and what is known of them; None of nobody."""
        circle = circle_of(ask)
        viewer = Viewer.of(ask, circle)
        allowed, users = _allowed(ask, viewer, query.candidate_ids)
        if not allowed.any():
            return allowed, None
        ask.deadline.check("features")
        people = People.named(query.candidate_ids, viewer).where(allowed)
        old_after_s = self.settings.features_life_days * DAY_S or math.inf
        return allowed, gather(ask, viewer, viewer.vector(ask.release), people, old_after_s, self.counts, users)

    def _refuse_nothing(self, scored: list[Scored]) -> None:
        """Raises Problem where no model answered."""
        if any(one.scores is not None for one in scored):
            return
        told = ", ".join(f"{one.asked}: {one.why}" for one in scored)
        if all(one.why == UNKNOWN for one in scored):
            raise Problem(404, "no-such-model", f"No such model or surface: {', '.join(one.asked for one in scored)}.")
        later = {"Retry-After": str(self.retry_after_s)}
        problem = NobodyScored(503, "no-scores", f"No model answered ({told}).", later)
        problem.late = any(one.why == LATE for one in scored)
        raise problem


def _allowed(ask: Ask, viewer: Viewer, people: Sequence[int]) -> tuple[Bools, Users]:
    """Whom the rules do not keep from the viewer, bool [n], and what is stored of them.

    Nobody is allowed whom the release does not know: whom the night left out as banned, gone or opted out has no row
    either. Where it does not say whom it keeps from the viewer, nobody is but whom it chose itself.
    """
    facts, ids, night = ask.facts, np.array(people, np.int64), _barred_by_night(ask, viewer)
    stored = viewer.stored.ids if viewer.stored is not None else []
    allowed = np.isin(ids, np.array(stored, np.int64)) if night is None else ~np.isin(ids, night)
    hidden, departed = facts.hidden, ask.release.departed
    own = {ask.query.user_id, *facts.barred}
    allowed &= np.array([one not in own and one not in hidden and one not in departed for one in people], np.bool_)
    users = ask.release.users(ids[allowed].tolist())
    allowed[allowed] = users.found
    return allowed, users.where(users.found)


def _barred_by_night(ask: Ask, viewer: Viewer) -> Int64 | None:
    """None where the release does not say."""
    circle = viewer.circle
    if circle is not None:
        return circle.barred if circle.complete else None
    found = bars_by_night(ask.release.tables, ask.query.user_id)
    return np.zeros(0, np.int64) if found is None and not viewer.known else found  # it bars nobody from a stranger


def _told(
    query: ScoreQuery, release: ServedRelease, scored: list[Scored], allowed: Bools, without_facts: bool
) -> dict[str, Any]:
    answered = [one for one in scored if one.scores is not None]
    barred = np.array(query.candidate_ids, np.int64)[~allowed].tolist()
    return {
        "user_id": str(query.user_id),
        "scores": {one.asked: _spread(one, allowed) for one in answered},
        "models": {one.asked: one.model for one in answered},
        "failed": {one.asked: one.why for one in scored if one.scores is None},
        "defaulted": {one.model: asdict(one.defaulted) for one in answered},
        "barred": [str(person) for person in barred],
        "degraded": without_facts or len(answered) < len(scored),
        "release": release.release_id,
        "as_of": release.as_of,
        "age_s": max(0, int(time.time() - release.as_of_s)),
    }


def _spread(one: Scored, allowed: Bools) -> npt.NDArray[np.float32]:
    """Scores of all candidates, NaN, which JSON writes as null, for those without."""
    out = np.full(len(allowed), np.nan, np.float32)
    out[allowed] = one.scores
    return out


def without_barred(
    answer: dict[str, Any], query: ScoreQuery, release: ServedRelease | None, facts: Facts | None
) -> dict[str, Any]:
    """The same, given later: who must not be shown by now has no score.

    release: that is served by now; facts: None where they cannot be read. Without either nobody has one.
    """
    allowed = np.zeros(len(query.candidate_ids), np.bool_)
    if release is not None and facts is not None and not facts.viewer_hidden:
        ask = Ask(Query(query.user_id, 0, frozenset(), False), release, facts, Deadline.after(AGAIN_S))
        allowed, _ = _allowed(ask, Viewer.of(ask, circle_of(ask)), query.candidate_ids)
    if allowed.all():
        return answer
    gone = (~allowed).tolist()
    barred = {*answer["barred"], *(str(one) for one, left in zip(query.candidate_ids, gone, strict=True) if left)}
    scores = {
        name: [None if left else score for score, left in zip(values, gone, strict=True)]
        for name, values in answer["scores"].items()
    }
    listed = [str(one) for one in query.candidate_ids if str(one) in barred]
    return answer | {
        "scores": scores,
        "barred": listed,
        "degraded": answer["degraded"] or facts is None or release is None,
    }
