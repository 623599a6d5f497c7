"""Events, what happens between nights: as callers send them, judged one by one, and as the other code knows them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

PAIR_TYPES = ("connected", "disconnected", "blocked", "unblocked", "dismissed")
"""What one person does to another, or two become to each other."""
OUTCOMES = ("shown", "clicked", "invited", "accepted")
"""What became of showing `other_id` to `user_id`; all but the first are reactions."""
PERSON_TYPES = ("deactivated", "reactivated", "banned", "unbanned", "opted_out", "opted_in")
EVENT_TYPES = (*PAIR_TYPES, *PERSON_TYPES, *OUTCOMES)

LIFTING = frozenset(("disconnected", "unblocked", "reactivated", "unbanned", "opted_in"))
"""What ends that people are kept apart, or that one is hidden."""
MOST_AHEAD, LIFTING_AHEAD = timedelta(days=1), timedelta(minutes=5)
"""How far an event may be ahead of the server's clock, which may be wrong itself: a later event of the same kind lifts
an earlier one, so one from the far future could never be lifted. One that lifts has less: until its time has come no
block or ban is obeyed that says it is of now, and refusing it shows nobody to anybody."""

FIELDS = ("event_id", "type", "user_id", "other_id", "at", "position", "model")
MAX_POSITION = 2**31 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVENT_ID = re.compile(r"[!-~]{1,128}")
_ID = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MODEL = re.compile(r"release|[A-Za-z0-9._-]{1,100}@[A-Za-z0-9._-]{1,100}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_OF_ANOTHER = frozenset((*PAIR_TYPES, *OUTCOMES))


@dataclass(frozen=True, slots=True)
class Event:
    """other_id: None for events of one person. at_us: microseconds since 1970. position: rank shown at, or None. model:
    that ranked who was shown, as the answer told it, or `release`; None where the caller does not tell."""

    event_id: str
    type: str
    user_id: int
    other_id: int | None
    at_us: int
    position: int | None = None
    model: str | None = None

    def key(self) -> bytes:
        """16 bytes in place of the event id, which may be long and may name people."""
        return hashlib.blake2b(self.event_id.encode(), digest_size=16).digest()

    def content(self) -> bytes:
        """8 bytes that tell a repeat from another event under the same id."""
        said: tuple[object, ...] = (self.type, self.user_id, self.other_id, self.at_us, self.position)
        if self.model is not None:  # so that what was stored before there were models is the same
            said += (self.model,)
        return hashlib.blake2b(repr(said).encode(), digest_size=8).digest()


class Refusal(NamedTuple):
    """Why an event was not taken. code: stable, for programs; detail: for people."""

    code: str
    detail: str


def parse_event(value: Any, now_us: int) -> Event | Refusal:
    """One element of the `events` of a request, as its JSON came. now_us: the clock, microseconds since 1970."""
    if not isinstance(value, dict):
        return Refusal("not_an_object", "An event is a JSON object.")
    unknown = next((name for name in value if name not in FIELDS), None)
    if unknown is not None:
        return Refusal("unknown_field", f"{_shown(unknown)}: no such field; there are {', '.join(FIELDS)}.")
    event_id, kind = value.get("event_id"), value.get("type")
    if not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id):
        return Refusal("invalid_event_id", f"event_id: {_shown(event_id)} is not 1 to 128 visible ASCII characters.")
    if kind not in EVENT_TYPES:
        return Refusal("invalid_type", f"type: {_shown(kind)} is none of {', '.join(EVENT_TYPES)}.")
    return _parse_rest(value, event_id, str(kind), now_us)


def _parse_rest(value: Mapping[str, Any], event_id: str, kind: str, now_us: int) -> Event | Refusal:
    user, other = _id(value.get("user_id")), _id(value.get("other_id"))
    if user is None:
        return Refusal("invalid_user_id", f"user_id: {_shown(value.get('user_id'))} {_NO_ID}")
    given = value.get("other_id") is not None
    if other is None and (given or kind in _OF_ANOTHER):
        return Refusal("invalid_other_id", f"other_id: {_shown(value.get('other_id'))} {_NO_ID}")
    if given and kind not in _OF_ANOTHER:
        return Refusal("unexpected_other_id", f"other_id: {kind} is of one person.")
    if other == user:
        return Refusal("self_pair", "user_id and other_id are the same.")
    at_us = _time_us(value.get("at"))
    if at_us is None:
        return Refusal("invalid_at", f"at: {_shown(value.get('at'))} is not an RFC 3339 time since 1970.")
    ahead, told = (LIFTING_AHEAD, "5 minutes") if kind in LIFTING else (MOST_AHEAD, "a day")
    if at_us > now_us + ahead / timedelta(microseconds=1):
        return Refusal("future_at", f"at: {_shown(value.get('at'))} is more than {told} ahead.")
    position = value.get("position")
    if position is not None and not (type(position) is int and 1 <= position <= MAX_POSITION and kind in OUTCOMES):
        return Refusal("invalid_position", f"position: {_shown(position)} is not the rank of somebody shown, from 1.")
    model = value.get("model")
    if model is not None and not (isinstance(model, str) and _MODEL.fullmatch(model) and kind in OUTCOMES):
        return Refusal("invalid_model", f"model: {_shown(model)} is not name@version of who ranked somebody shown.")
    return Event(event_id, kind, user, other, at_us, position, model)


_NO_ID = "is not a 64-bit integer as text in canonical decimal form."


def _id(value: Any) -> int | None:
    if isinstance(value, str) and _ID.fullmatch(value):
        number = int(value)
        if -(1 << 63) <= number < 1 << 63:
            return number
    return None


def _time_us(value: Any) -> int | None:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        since = datetime.fromisoformat(value.upper()) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return since // timedelta(microseconds=1) if since >= timedelta(0) else None


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):  # which may be nested more deeply than Python writes
        return "an array" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
