"""What POST /v1/events takes and refuses, on live facts of its own; the doors before it have tests of their own."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import StoreError
from infra.events import EVENT_TYPES, FIELDS
from infra.live_facts import LiveStore, open_live_facts
from infra.settings import EventSettings, Settings
from lookup_api.events import take_events
from lookup_api.problems import Problem

MOST, RETRY_S = 50, 5
EVENT = {"event_id": "a", "type": "blocked", "user_id": "1", "other_id": "2", "at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[LiveStore]:
    opened = open_live_facts(str(tmp_path / "live"), Settings(events=EventSettings(max_mib=64)))
    yield opened
    opened.close()


def taken(facts: LiveStore, *events: Any) -> dict[str, Any]:
    return take_events(orjson.dumps({"events": events}), facts, MOST, RETRY_S)


def stored(facts: LiveStore) -> int:
    batch = facts.unexported(10**6)
    return len(batch.events) if batch else 0


def test_sound_events_are_stored_and_others_named_by_their_place(facts: LiveStore) -> None:
    made = taken(facts, EVENT, {"type": "blocked"}, EVENT | {"event_id": "b", "user_id": "2", "other_id": "3"}, 7)
    assert made["accepted"] == 2
    assert [(one["index"], one["code"]) for one in made["rejected"]] == [(1, "invalid_event_id"), (3, "not_an_object")]
    assert all(one["detail"] for one in made["rejected"])
    assert stored(facts) == 2
    assert dict(facts.of(2).barred) == {1: "blocked", 3: "blocked"}


def test_an_event_sent_again_is_accepted_again_and_stored_once(facts: LiveStore) -> None:
    assert [taken(facts, EVENT, EVENT)["accepted"], taken(facts, EVENT)["accepted"]] == [2, 1]
    assert stored(facts) == 1


def test_refusals_of_the_store_are_told_at_the_place_of_the_event(facts: LiveStore) -> None:
    facts.erase(9, 1)
    made = taken(facts, {}, EVENT, EVENT | {"event_id": "b", "other_id": "9"}, EVENT | {"other_id": "5"})
    told = [(one["index"], one["code"]) for one in made["rejected"]]
    assert told == [(0, "invalid_event_id"), (2, "erased_person"), (3, "event_id_reused")]
    assert made["accepted"] == stored(facts) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"events":{}}', b'{"events":[],"x":1}', b'{"Events":[]}', b"\xff", b'"events"']
)
def test_a_body_that_holds_no_events_is_a_bad_request(facts: LiveStore, body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        take_events(body, facts, MOST, RETRY_S)
    assert refused.value.status == 400


def test_too_many_events_are_refused_as_a_whole(facts: LiveStore) -> None:
    with pytest.raises(Problem) as refused:
        taken(facts, *([EVENT] * (MOST + 1)))
    assert refused.value.status == 400
    assert stored(facts) == 0


def test_events_that_cannot_be_stored_are_answered_503_and_none_is_stored(facts: LiveStore) -> None:
    class Down:
        def record(self, events: Any) -> Any:
            raise StoreError("the log is full")

    with pytest.raises(Problem) as refused:
        take_events(orjson.dumps({"events": [EVENT]}), Down(), MOST, RETRY_S)
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == str(RETRY_S)
    assert "full" not in refused.value.detail, "nothing internal is told"


def test_an_empty_list_is_accepted_and_asks_nothing_of_the_store() -> None:
    assert take_events(b'{"events":[]}', None, MOST, RETRY_S) == {  # type: ignore[arg-type]
        "accepted": 0, "rejected": [],
    }  # fmt: skip


NUMBERS = st.integers(-(2**70), 2**70)
VALUES = {
    "event_id": st.text(max_size=6) | st.just("a"),
    "type": st.sampled_from(EVENT_TYPES) | st.text(max_size=6),
    "user_id": NUMBERS.map(str) | st.sampled_from(["1", "2", "01", "-0", "1 ", "+1", "1e3"]),
    "other_id": NUMBERS.map(str) | st.sampled_from(["1", "2", "3"]),
    "at": st.datetimes().map(lambda t: t.isoformat() + "Z") | st.sampled_from(["2026-01-01T00:00:00Z", "now"]),
    "position": st.integers(-2, 2**33) | st.none(),
    "model": st.text(max_size=6) | st.sampled_from(["release", "small@1", "a@", "@1", "a@1\n"]),
}
ANYTHING = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
FUZZED = st.fixed_dictionaries({}, optional={name: VALUES[name] | ANYTHING for name in FIELDS})


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FUZZED | ANYTHING, max_size=8))
def test_nothing_is_stored_that_was_not_accepted(facts: LiveStore, events: list[Any]) -> None:
    before = {(e.type, e.user_id, e.other_id, e.at_us) for e in logged(facts)}
    number = len(logged(facts))
    made = take_events(json.dumps({"events": events}).encode("utf-8", "surrogatepass"), facts, MOST, RETRY_S)
    refused = {one["index"] for one in made["rejected"]}
    assert made["accepted"] == len(events) - len(refused)
    accepted = [event for place, event in enumerate(events) if place not in refused]
    new = [e for e in logged(facts) if (e.type, e.user_id, e.other_id, e.at_us) not in before]
    assert len(logged(facts)) - number <= len(accepted)
    for event in new:
        assert any(
            (one["type"], one["user_id"]) == (event.type, str(event.user_id))
            and one.get("other_id") == (None if event.other_id is None else str(event.other_id))
            for one in accepted
        )


def logged(facts: LiveStore) -> list[Any]:
    batch = facts.unexported(10**6)
    return list(batch.events) if batch else []


def test_a_day_ahead_is_by_the_clock(facts: LiveStore) -> None:
    ahead = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2 * 86_400))
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    made = taken(facts, EVENT | {"at": ahead}, EVENT | {"event_id": "b", "at": soon})
    assert [one["code"] for one in made["rejected"]] == ["future_at"]
