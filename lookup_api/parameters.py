"""Parses what a caller sends, strictly: a value is canonical or it is refused with the reason."""

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl

from lookup_api.ladder import Query
from lookup_api.problems import bad_parameter

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
MAX_EXCLUDED = 1000
PARAMETERS = ("limit", "exclude", "explain")
LATER = "async"
MAX_QUERY_BYTES = 32_768

_ID = re.compile(r"0|-?[1-9][0-9]{0,18}")
_LIMIT = re.compile(r"[1-9][0-9]{0,2}")
_NOBODY: frozenset[int] = frozenset()


def parse_query(user_id: str, query_string: str) -> Query:
    """Raises Problem (400) that names the parameter and the rule it breaks."""
    user = parse_id(user_id, "user_id")
    if not query_string:
        return Query(user, DEFAULT_LIMIT, _NOBODY, False)
    values = _values(query_string)
    return Query(
        user,
        _limit(values["limit"]) if "limit" in values else DEFAULT_LIMIT,
        _exclude(values["exclude"]) if "exclude" in values else _NOBODY,
        _flag(values["explain"], "explain") if "explain" in values else False,
    )


def parse_later(query_string: str) -> bool:
    """Whether the answer is to be made by and by. Raises Problem as `parse_query` does."""
    return bool(query_string) and _flag(_values(query_string, (LATER,)).get(LATER, "0"), LATER)


def parse_id(text: str, name: str) -> int:
    """A canonical decimal int64: no plus, no leading zero, no space, no minus zero."""
    if _ID.fullmatch(text):
        number = int(text)
        if -(1 << 63) <= number < 1 << 63:
            return number
    raise bad_parameter(f"{name}: {_shown(text)} is not a 64-bit integer in canonical decimal form.")


def _values(query_string: str, names: Sequence[str] = PARAMETERS) -> dict[str, str]:
    if len(query_string) > MAX_QUERY_BYTES:
        raise bad_parameter(f"The query is longer than {MAX_QUERY_BYTES} bytes.")
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise bad_parameter("The query string is not well-formed.") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            raise bad_parameter(f"{_shown(name)}: no such parameter; there are {', '.join(names)}.")
        if name in values:
            raise bad_parameter(f"{name}: given twice.")
        values[name] = value
    return values


def _limit(text: str) -> int:
    if _LIMIT.fullmatch(text) and int(text) <= MAX_LIMIT:
        return int(text)
    raise bad_parameter(f"limit: {_shown(text)} is not an integer from 1 to {MAX_LIMIT}.")


def _exclude(text: str) -> frozenset[int]:
    parts = text.split(",")
    if len(parts) > MAX_EXCLUDED:
        raise bad_parameter(f"exclude: {len(parts)} ids, at most {MAX_EXCLUDED} are taken.")
    return frozenset(parse_id(part, "exclude") for part in parts)


def _flag(text: str, name: str) -> bool:
    if text in ("0", "1"):
        return text == "1"
    raise bad_parameter(f"{name}: {_shown(text)} is not 0 or 1.")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
