"""The body of POST /v1/score, parsed strictly: for whom to score whom, and by which models."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from infra.model_routes import VARIANTS
from lookup_api.parameters import parse_id
from lookup_api.problems import Problem

FIELDS = ("user_id", "candidate_ids", "models")
VARIANT = "variant"
"""May be left out."""
MOST_MODELS = 16
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class ScoreQuery:
    """A parsed body. models: names of surfaces and models, as the caller wrote them. variant: wanted, of surfaces whose
    canary clients choose."""

    user_id: int
    candidate_ids: tuple[int, ...]
    models: tuple[str, ...]
    variant: str | None = None

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ScoreQuery":
        """Of parsed JSON that `to_json` wrote."""
        return cls(values["user_id"], tuple(values["candidate_ids"]), tuple(values["models"]), values.get(VARIANT))


def parse_score_query(body: bytes, most: int) -> ScoreQuery:
    """most: candidates in one request. Raises Problem (400) that says what is wrong with the body."""
    values = _values(body)
    user_id = _id(values["user_id"], "user_id")
    candidates = _texts(values["candidate_ids"], "candidate_ids", most)
    models = _texts(values["models"], "models", MOST_MODELS)
    for name in models:
        if not 1 <= len(name) <= LONGEST_NAME:
            raise _invalid(f"models: a name has 1 to {LONGEST_NAME} characters.")
    if VARIANT in values and values[VARIANT] not in VARIANTS:
        raise _invalid(f"{VARIANT}: is not {' or '.join(VARIANTS)}.")
    ids = tuple(_id(one, "candidate_ids") for one in candidates)
    return ScoreQuery(user_id, ids, tuple(models), values.get(VARIANT))


def _values(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _invalid("The body is not JSON.") from None
    if not isinstance(parsed, dict) or parsed.keys() - {VARIANT} != set(FIELDS):
        lacks = [name for name in FIELDS if name not in parsed] if isinstance(parsed, dict) else []
        why = f" It lacks {', '.join(lacks)}." if lacks else ""
        raise _invalid('The body is not {"user_id":"…","candidate_ids":[…],"models":[…]}.' + why)
    return parsed


def _texts(values: Any, name: str, most: int) -> list[str]:
    """1 to `most` different texts."""
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise _invalid(f"{name}: is not a list of texts.")
    if not 1 <= len(values) <= most:
        raise _invalid(f"{name}: {len(values)} of them, 1 to {most} are taken.")
    if len(set(values)) < len(values):
        raise _invalid(f"{name}: one is given twice.")
    return values


def _id(value: Any, name: str) -> int:
    if not isinstance(value, str):
        raise _invalid(f"{name}: ids are texts.")
    try:
        return parse_id(value, name)
    except Problem as problem:
        raise _invalid(problem.detail) from None


def _invalid(detail: str) -> Problem:
    return Problem(400, "invalid-body", detail)
