"""Answers one query from one release. Knows nothing of HTTP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from infra.errors import CorruptArtifact
from lookup_api.explain import add_explanations
from lookup_api.fallback import LADDER, Outcome, Query, Rung, climb
from lookup_api.metrics import Metrics
from lookup_api.served_release import ServedRelease

LARGEST_SCORE = 1e30
"""JSON has no infinity; no ranker comes near."""


@dataclass(frozen=True)
class Lookup:
    """The policy of answering: the ladder, and how many of one group may be shown (in the order of rules.CAPPED)."""

    caps: Sequence[int]
    metrics: Metrics
    ladder: Sequence[Rung] = LADDER

    def answer(self, query: Query, release: ServedRelease) -> dict[str, Any]:
        """The answer as values that orjson takes, all of it from this one release; the caller adds its request id."""
        outcome = climb(self.ladder, query, release, self.caps, self.metrics)
        items: Any = items_json(outcome)
        degraded = outcome.degraded
        if query.explain:
            items = orjson.loads(items)
            degraded |= not add_explanations(items, query.user_id, release)
        else:
            items = orjson.Fragment(items)
        if degraded:
            self.metrics.degraded.inc()
        return {
            "user_id": str(query.user_id),
            "items": items,
            "source": outcome.source,
            "cache": "none",
            "degraded": degraded,
            "release": release.release_id,
            "as_of": release.as_of,
            "age_s": max(0, int(time.time() - release.as_of_s)),
        }


def items_json(outcome: Outcome) -> str:
    """The shown people as a JSON array, written as text: objects made only to be serialised cost twice as much."""
    ranking = outcome.ranking
    if ranking is None:
        return "[]"
    base, text_of = ranking.base, ranking.text_of
    items = []
    for rank, (offset, score, shape, count) in enumerate(outcome.picked.records, 1):
        if not -LARGEST_SCORE < score < LARGEST_SCORE:
            raise CorruptArtifact(f"ranking blob: score {score}", "Verify the release.")
        head, tail = text_of(shape)
        if count:
            head = f'{head},"count":{count}'
        items.append(f'{{"user_id":"{base + offset}","rank":{rank},"score":{score:.7g},"reasons":[{head}{tail}]}}')
    return f"[{','.join(items)}]"
