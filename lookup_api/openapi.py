"""What the API takes and answers, as OpenAPI 3.1: served at /openapi.json, and what the tests hold the API to."""

from infra.events import EVENT_TYPES, MAX_POSITION
from infra.keys import ADMIN, EVENTS, READ
from infra.model_routes import VARIANTS
from lookup_api.metrics import SOURCES
from lookup_api.openapi_models import model_paths, model_schemas
from lookup_api.openapi_parts import (
    COUNT,
    NAME_OR_NULL,
    NUMBERS,
    PROBLEMS,
    TEXT,
    Json,
    answer,
    array,
    open_operation,
    operation,
    path_parameter,
    problem,
    query,
    record,
    ref,
    refusals,
    response,
)
from lookup_api.openapi_scores import score_paths, score_schemas
from lookup_api.parameters import DEFAULT_LIMIT, MAX_EXCLUDED, MAX_LIMIT

_GREATEST = 2**63 - 1


def int64_pattern() -> str:
    """The canonical decimal form of exactly the numbers of 64 bits with a sign, as a regular expression."""
    digits = str(_GREATEST)
    shorter = f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    below = []
    for place, digit in enumerate(digits):
        low = 1 if place == 0 else 0
        rest = len(digits) - place - 1
        if int(digit) > low:
            below.append(f"{digits[:place]}[{low}-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return f"^(0|-?({'|'.join([shorter, *below, digits])})|-{_GREATEST + 1})$"


def document(version: str, most_events: int, most_candidates: int = 1000) -> Json:
    """most_events, most_candidates: in one request, of events and of scores."""
    found = _paths(most_events) | score_paths(most_candidates) | model_paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "People You May Know: lookup API",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Who a user may know, from the nightly release and what happened since. Errors are problem "
            "JSON (RFC 9457). Every answer has an X-Request-Id, the caller's where that is a token.",
        },
        "servers": [{"url": "/"}],
        "paths": {path: _only(methods) for path, methods in found.items()},
        "components": {
            "schemas": _schemas() | score_schemas() | model_schemas(),
            "responses": {name: problem(says, headers) for name, (says, headers) in PROBLEMS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `pymk key create`."},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _only(methods: Json) -> Json:
    """A path whose answer to any other method each of its operations tells, as there is no better place."""
    refused = {"405": ref("responses", "MethodNotAllowed")}
    return {
        method: {**operation, "responses": operation["responses"] | refused} for method, operation in methods.items()
    }


def _paths(most_events: int) -> Json:
    user = path_parameter("user_id", "Whose list.")
    return {
        "/v1/users/{user_id}/recommendations": {
            "get": operation(
                "recommendations",
                "People whom a user may know, best first",
                READ,
                [user, *_list_parameters()],
                {"200": answer("Answer", "The list.", etag=True), "304": response("The caller has this list.")},
                "InvalidParameter",
            )
        },
        "/v1/users/{user_id}/mutual/{other_id}": {
            "get": operation(
                "mutual",
                "Friends whom two people share, as far as the release stores them and the user may see them",
                ADMIN,
                [user, path_parameter("other_id", "The other.")],
                {"200": answer("Mutual", "The friends.")},
                "InvalidParameter",
            )
        },
        "/v1/events": {"post": _events(most_events)},
        "/v1/releases": {
            "get": operation(
                "releases", "Releases of the store and what their reports measured", ADMIN, [],
                {"200": answer("Releases", "Newest first.")},
            )
        },
        "/healthz": {"get": open_operation("healthz", "Alive: the process answers", "Alive")},
        "/readyz": {
            "get": open_operation("readyz", "Ready: a release is served and the server is not stopping", "Ready")
            | {"responses": {"200": answer("Ready", "Ready."), "503": ref("responses", "Unavailable")}}
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics; any key will do",
                "security": [{"bearer": []}, {"header": []}],
                "responses": {
                    "200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **refusals(),
                },
            }
        },
    }  # fmt: skip


def _events(most: int) -> Json:
    items = {
        "description": "Each is judged by itself: one that is no event is rejected, the others are stored.",
        "anyOf": [ref("schemas", "Event"), {}],
    }
    body = {
        "type": "object",
        "required": ["events"],
        "additionalProperties": False,
        "properties": {"events": {"type": "array", "maxItems": most, "items": items}},
    }
    found = operation(
        "events", "Record what happened: durable before the answer, obeyed by the next", EVENTS, [],
        {"202": answer("EventsTaken", "Stored, but for those rejected. Sending an event again changes nothing.")},
        "InvalidBody",
    )  # fmt: skip
    found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    found["responses"] |= {
        "413": ref("responses", "TooLarge"),
        "415": ref("responses", "NotJson"),
    }
    return found


def _list_parameters() -> list[Json]:
    ids = {"type": "array", "minItems": 1, "maxItems": MAX_EXCLUDED, "items": ref("schemas", "Id")}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
    return [
        query("limit", f"How many; {DEFAULT_LIMIT} if not given.", limit),
        query("exclude", "People to leave out, by comma.", ids) | {"style": "form", "explode": False},
        query("explain", "1 says for each person where they came from and what the ranker saw.",
               {"type": "integer", "enum": [0, 1]}),
    ]  # fmt: skip


def _schemas() -> Json:
    identity = ref("schemas", "Id")
    return {
        "Id": {"type": "string", "pattern": int64_pattern(), "description": "A 64-bit integer, as text.",
               "examples": ["10000000097"]},
        "Answer": record(
            {
                "user_id": identity,
                "items": array(ref("schemas", "Item")) | {"maxItems": MAX_LIMIT},
                "source": {"enum": list(SOURCES), "description": "The rung that answered."},
                "cache": {"enum": ["none", "l1", "l2"]},
                "degraded": {"type": "boolean", "description": "A higher rung failed."},
                "release": TEXT,
                "as_of": TEXT | {"format": "date-time"},
                "age_s": COUNT,
                "request_id": TEXT,
            },
            {"model": TEXT | {"description": "The routed model that ranked; the release's own ranker without it."},
             "variant": {"enum": list(VARIANTS)},
             "explain": record({"rungs": array(record(
                {"rung": TEXT, "outcome": TEXT, "ms": {"type": "number"}, "without": array(TEXT)}))})},
        ),
        "Item": record(
            {"user_id": identity, "rank": {"type": "integer", "minimum": 1}, "score": {"type": "number"},
             "reasons": array(ref("schemas", "Reason"))},
            {"explain": record({"sources": array(TEXT), "features": NUMBERS})},
        ),
        "Reason": record({"kind": TEXT}, {"attribute": TEXT, "value": TEXT, "count": COUNT}),
        "Mutual": record(
            {"user_id": identity, "other_id": identity, "count": COUNT, "friends": array(identity)}
        ),
        "Event": record(
            {"event_id": {"type": "string", "pattern": "^[!-~]{1,128}$"}, "type": {"enum": list(EVENT_TYPES)},
             "user_id": identity, "at": TEXT | {"format": "date-time"}},
            {"other_id": identity, "position": {"type": "integer", "minimum": 1, "maximum": MAX_POSITION},
             "model": TEXT | {"description": "Who ranked the person shown, as the answer's model says, or release."}},
        ),
        "EventsTaken": record(
            {"accepted": COUNT, "rejected": array(record({"index": COUNT, "code": TEXT, "detail": TEXT}))}
        ),
        "Releases": record(
            {"current": NAME_OR_NULL, "served": NAME_OR_NULL, "releases": array(ref("schemas", "Release"))}
        ),
        "Release": record(
            {"release_id": TEXT, "as_of": TEXT | {"format": "date-time"}, "users": COUNT, "metrics": NUMBERS,
             "peers_recall": NUMBERS}
        ),
        "Alive": record({"status": {"const": "alive"}}),
        "Ready": record(
            {"status": {"const": "ready"}, "release": TEXT, "as_of": TEXT,
             "live_facts": {"enum": ["read", "failing"]}}
        ),
        "Problem": record(
            {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT, "instance": TEXT,
             "request_id": TEXT}
        ),
    }  # fmt: skip
