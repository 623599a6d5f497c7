from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.events import EVENT_TYPES, FIELDS, OUTCOMES, PAIR_TYPES, PERSON_TYPES, Event, Refusal, parse_event
from infra.live_records import RESTRICTING, changes_of

NOW_US = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
GOOD = {"event_id": "e-1", "type": "blocked", "user_id": "1", "other_id": "-2", "at": "2026-01-01T00:00:00.5+01:00"}


def judged(**changed: Any) -> Event | Refusal:
    return parse_event({name: value for name, value in (GOOD | changed).items() if value is not ...}, NOW_US)


def test_a_sound_event_comes_out_as_values_with_its_time_in_utc() -> None:
    at_us = int(datetime(2025, 12, 31, 23, tzinfo=UTC).timestamp() * 1e6) + 500_000
    assert judged() == Event("e-1", "blocked", 1, -2, at_us)


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_type_is_taken_with_the_people_it_names(kind: str) -> None:
    other = ... if kind in PERSON_TYPES else "2"
    found = judged(type=kind, other_id=other)
    assert isinstance(found, Event)
    assert found.other_id == (None if kind in PERSON_TYPES else 2)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_what_is_nested_as_deeply_as_json_may_be_is_refused_like_anything_else(field: str, opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    nested = orjson.loads(opening * 1000 + "1" + closing * 1000)
    found = judged(**{"type": "shown", field: nested})
    assert isinstance(found, Refusal)
    assert found.code == f"invalid_{field}"


@pytest.mark.parametrize("kind", OUTCOMES)
def test_the_place_at_which_somebody_was_shown_may_be_told(kind: str) -> None:
    found = judged(type=kind, position=3)
    assert isinstance(found, Event)
    assert found.position == 3


@pytest.mark.parametrize("model", ["small@1", "release"])
def test_the_model_that_ranked_who_was_shown_may_be_told(model: str) -> None:
    found, without = judged(type="shown", model=model), judged(type="shown")
    assert isinstance(found, Event)
    assert isinstance(without, Event)
    assert (found.model, without.model) == (model, None)
    assert found.content() != without.content()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"event_id": ...}, "invalid_event_id"),
        ({"event_id": ""}, "invalid_event_id"),
        ({"event_id": "x" * 129}, "invalid_event_id"),
        ({"event_id": "a b"}, "invalid_event_id"),
        ({"event_id": 5}, "invalid_event_id"),
        ({"type": "erased"}, "invalid_type"),
        ({"type": ["blocked"]}, "invalid_type"),
        ({"type": None}, "invalid_type"),
        ({"user_id": 1}, "invalid_user_id"),
        ({"user_id": "01"}, "invalid_user_id"),
        ({"user_id": "-0"}, "invalid_user_id"),
        ({"user_id": "9223372036854775808"}, "invalid_user_id"),
        ({"user_id": "١"}, "invalid_user_id"),
        ({"user_id": ...}, "invalid_user_id"),
        ({"other_id": ...}, "invalid_other_id"),
        ({"other_id": "x"}, "invalid_other_id"),
        ({"type": "banned"}, "unexpected_other_id"),
        ({"type": "banned", "other_id": ["2"]}, "invalid_other_id"),
        ({"other_id": "1"}, "self_pair"),
        ({"at": "2026-01-01"}, "invalid_at"),
        ({"at": "2026-01-01T00:00:00"}, "invalid_at"),
        ({"at": "2026-02-30T00:00:00Z"}, "invalid_at"),
        ({"at": "1969-12-31T23:59:59Z"}, "invalid_at"),
        ({"at": "9999-12-31T23:59:59-23:59"}, "future_at"),
        ({"at": "20260101T000000Z"}, "invalid_at"),
        ({"at": 1767225600}, "invalid_at"),
        ({"at": "2026-01-03T00:00:01Z"}, "future_at"),
        ({"position": 1}, "invalid_position"),
        ({"model": "small@1"}, "invalid_model"),
        ({"type": "shown", "model": "small"}, "invalid_model"),
        ({"type": "shown", "model": "a b@1"}, "invalid_model"),
        ({"type": "shown", "position": 0}, "invalid_position"),
        ({"type": "shown", "position": True}, "invalid_position"),
        ({"type": "shown", "position": 2**31}, "invalid_position"),
        ({"userId": "1"}, "unknown_field"),
    ],
)
def test_what_is_wrong_is_named_by_a_code(changed: dict[str, Any], code: str) -> None:
    found = judged(**changed)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert found.detail


def test_what_lifts_is_taken_up_to_five_minutes_ahead_and_what_restricts_up_to_a_day() -> None:
    """Whoever stops being kept away by a time to come could not be kept away until then."""
    lifting = {kind for kind, (_, hides) in RESTRICTING.items() if not hides}
    lifting |= {kind for kind in PAIR_TYPES for change in changes_of(Event("1", kind, 1, 2, 5)) if not change.value}
    for kind in EVENT_TYPES:
        other = ... if kind in PERSON_TYPES else "2"
        soon, later = (
            judged(type=kind, other_id=other, at=at) for at in ("2026-01-02T00:05:00Z", "2026-01-02T00:05:01Z")
        )
        assert isinstance(soon, Event)
        assert isinstance(later, Refusal if kind in lifting else Event)
        assert not isinstance(later, Refusal) or later.code == "future_at"


@pytest.mark.parametrize("at", ["2026-01-02T23:59:59Z", "2026-01-01t00:00:00z", "1970-01-01T00:00:00.123456789Z"])
def test_times_as_rfc_3339_allows_and_up_to_a_day_ahead_are_taken(at: str) -> None:
    assert isinstance(judged(at=at), Event)


def test_ids_of_any_int64_are_taken() -> None:
    found = judged(user_id=str(-(2**63)), other_id=str(2**63 - 1))
    assert isinstance(found, Event)
    assert (found.user_id, found.other_id) == (-(2**63), 2**63 - 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON) | JSON)
def test_whatever_comes_is_judged(value: Any) -> None:
    found = parse_event(value, NOW_US)
    assert isinstance(found, Refusal) or found.type in EVENT_TYPES


@given(st.fixed_dictionaries({}, optional={name: JSON | st.just(GOOD.get(name)) for name in FIELDS}))
def test_whatever_is_taken_says_what_was_sent(value: dict[str, Any]) -> None:
    found = parse_event(value, NOW_US)
    if isinstance(found, Event):
        told = (found.event_id, found.type, str(found.user_id))
        assert told == (value["event_id"], value["type"], value["user_id"])


def test_an_event_is_told_from_another_of_the_same_id() -> None:
    one, same, other = judged(), judged(), judged(other_id="3")
    assert isinstance(one, Event)
    assert isinstance(same, Event)
    assert isinstance(other, Event)
    assert one.key() == other.key() == same.key()
    assert one.content() == same.content() != other.content()
