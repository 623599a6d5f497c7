"""POST /v1/events: judges what callers send and stores what is sound, durably, before it answers.

Values in, values out; the routes speak HTTP.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from infra.errors import StoreError
from infra.events import Event, Refusal, parse_event
from infra.steady_time import latest_us
from lookup_api.problems import Problem

BODY_KEY = "events"


class Recorder(Protocol):
    def record(self, events: Sequence[Event]) -> Mapping[int, Refusal]:
        """See infra.live_facts.LiveFacts."""
        ...


def take_events(body: bytes, facts: Recorder, most: int, retry_after_s: int) -> dict[str, Any]:
    """The answer of a 202: {"accepted": how many are stored, "rejected": [{"index", "code", "detail"}, …]}.

    An event that was stored before, under the same id, is accepted again. most: events in one request. Raises Problem:
    400 for a body that holds no events or too many, 503 where they cannot be stored, and then none of them is.
    """
    values = _values(body, most)
    now_us = latest_us()
    judged = [parse_event(value, now_us) for value in values]
    places = [place for place, found in enumerate(judged) if isinstance(found, Event)]
    events = [found for found in judged if isinstance(found, Event)]
    refused = {place: found for place, found in enumerate(judged) if isinstance(found, Refusal)}
    refused |= {places[number]: refusal for number, refusal in _record(facts, events, retry_after_s).items()}
    rejected = [{"index": place, "code": code, "detail": detail} for place, (code, detail) in sorted(refused.items())]
    return {"accepted": len(values) - len(rejected), "rejected": rejected}


def _record(facts: Recorder, events: Sequence[Event], retry_after_s: int) -> Mapping[int, Refusal]:
    if not events:
        return {}
    try:
        return facts.record(events)
    except StoreError as error:
        headers = {"Retry-After": str(retry_after_s)}
        raise Problem(503, "events-not-stored", "Events cannot be stored now; none was.", headers) from error


def _values(body: bytes, most: int) -> list[Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _invalid("The body is not JSON.") from None
    if not isinstance(parsed, dict) or parsed.keys() != {BODY_KEY} or not isinstance(parsed[BODY_KEY], list):
        raise _invalid('The body is not {"events":[…]}.')
    if len(parsed[BODY_KEY]) > most:
        raise Problem(400, "too-many-events", f"{len(parsed[BODY_KEY])} events, at most {most} are taken at once.")
    return parsed[BODY_KEY]


def _invalid(detail: str) -> Problem:
    return Problem(400, "invalid-body", detail)
