"""What the API takes and answers, as OpenAPI 3.1: served at /openapi.json, and what the tests hold the API to."""

from typing import Any

from infra.events import EVENT_TYPES, MAX_POSITION
from infra.keys import ADMIN, EVENTS, READ
from infra.model_routes import VARIANTS
from lookup_api.metrics import SOURCES
from lookup_api.parameters import DEFAULT_LIMIT, MAX_EXCLUDED, MAX_LIMIT

Json = dict[str, Any]
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


def document(version: str, most_events: int) -> Json:
    """most_events: in one request."""
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
        "paths": {path: _only(methods) for path, methods in _paths(most_events).items()},
        "components": {
            "schemas": _schemas(),
            "responses": {name: _problem(says, headers) for name, (says, headers) in _PROBLEMS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key made by `pymk key create`."},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _only(methods: Json) -> Json:
    """A path whose answer to any other method each of its operations tells, as there is no better place."""
    refused = {"405": _ref("responses", "MethodNotAllowed")}
    return {
        method: {**operation, "responses": operation["responses"] | refused} for method, operation in methods.items()
    }


def _paths(most_events: int) -> Json:
    user = _path_parameter("user_id", "Whose list.")
    return {
        "/v1/users/{user_id}/recommendations": {
            "get": _operation(
                "recommendations",
                "People whom a user may know, best first",
                READ,
                [user, *_list_parameters()],
                {"200": _json("Answer", "The list.", etag=True), "304": _response("The caller has this list.")},
                "InvalidParameter",
            )
        },
        "/v1/users/{user_id}/mutual/{other_id}": {
            "get": _operation(
                "mutual",
                "Friends whom two people share, as far as the release stores them and the user may see them",
                ADMIN,
                [user, _path_parameter("other_id", "The other.")],
                {"200": _json("Mutual", "The friends.")},
                "InvalidParameter",
            )
        },
        "/v1/events": {"post": _events(most_events)},
        "/v1/releases": {
            "get": _operation(
                "releases", "Releases of the store and what their reports measured", ADMIN, [],
                {"200": _json("Releases", "Newest first.")},
            )
        },
        "/healthz": {"get": _open_operation("healthz", "Alive: the process answers", "Alive")},
        "/readyz": {
            "get": _open_operation("readyz", "Ready: a release is served and the server is not stopping", "Ready")
            | {"responses": {"200": _json("Ready", "Ready."), "503": _ref("responses", "Unavailable")}}
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Prometheus metrics; any key will do",
                "security": [{"bearer": []}, {"header": []}],
                "responses": {
                    "200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **_refusals(),
                },
            }
        },
    }  # fmt: skip


def _events(most: int) -> Json:
    items = {
        "description": "Each is judged by itself: one that is no event is rejected, the others are stored.",
        "anyOf": [_ref("schemas", "Event"), {}],
    }
    body = {
        "type": "object",
        "required": ["events"],
        "additionalProperties": False,
        "properties": {"events": {"type": "array", "maxItems": most, "items": items}},
    }
    operation = _operation(
        "events", "Record what happened: durable before the answer, obeyed by the next", EVENTS, [],
        {"202": _json("EventsTaken", "Stored, but for those rejected. Sending an event again changes nothing.")},
        "InvalidBody",
    )  # fmt: skip
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    operation["responses"] |= {
        "413": _ref("responses", "TooLarge"),
        "415": _ref("responses", "NotJson"),
    }
    return operation


def _list_parameters() -> list[Json]:
    ids = {"type": "array", "minItems": 1, "maxItems": MAX_EXCLUDED, "items": _ref("schemas", "Id")}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
    return [
        _query("limit", f"How many; {DEFAULT_LIMIT} if not given.", limit),
        _query("exclude", "People to leave out, by comma.", ids) | {"style": "form", "explode": False},
        _query("explain", "1 says for each person where they came from and what the ranker saw.",
               {"type": "integer", "enum": [0, 1]}),
    ]  # fmt: skip


def _operation(
    name: str, summary: str, scope: str, parameters: list[Json], responses: Json, invalid: str | None = None
) -> Json:
    found: Json = {
        "operationId": name,
        "summary": summary,
        "description": f"Needs a key of scope `{scope}`, where keys are configured.",
        "security": [{"bearer": []}, {"header": []}],
        "parameters": parameters,
        "responses": responses | _refusals(),
    }
    if invalid is not None:
        found["responses"]["400"] = _ref("responses", invalid)
    return found


def _open_operation(name: str, summary: str, schema: str) -> Json:
    return {"operationId": name, "summary": summary, "security": [], "responses": {"200": _json(schema, "So it is.")}}


def _refusals() -> Json:
    return {
        "401": _ref("responses", "NoKey"),
        "403": _ref("responses", "WrongScope"),
        "429": _ref("responses", "TooMany"),
        "503": _ref("responses", "Unavailable"),
    }


_LATER = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}}
_ALLOW = {"Allow": {"description": "Those it takes.", "required": True, "schema": {"type": "string"}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_PROBLEMS: dict[str, tuple[str, Json]] = {
    "InvalidParameter": ("An id or a parameter does not parse, or there is no such parameter.", {}),
    "InvalidBody": ("The body is not what the schema says, or has too many events.", {}),
    "NoKey": ("No key, or one that is unknown, revoked or expired.", _CHALLENGE),
    "WrongScope": ("The key is for something else.", _CHALLENGE),
    "MethodNotAllowed": ("Another method than this path takes.", _ALLOW),
    "TooLarge": ("Too many bytes.", {}),
    "NotJson": ("The body is of another type.", {}),
    "TooMany": ("A rate limit is reached.", _LATER),
    "Unavailable": (
        "No release is served, what is stored cannot be read, events cannot be stored, or too much is asked.",
        _LATER,
    ),
}


def _problem(says: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": _ref("schemas", "Problem")}}
    return _response(says) | {"content": content, "headers": _response(says)["headers"] | headers}


def _json(schema: str, says: str, etag: bool = False) -> Json:
    found = _response(says) | {"content": {"application/json": {"schema": _ref("schemas", schema)}}}
    if etag:
        found["headers"] |= {"ETag": {"schema": {"type": "string"}}, "Cache-Control": {"schema": {"type": "string"}}}
    return found


def _response(says: str) -> Json:
    return {"description": says, "headers": {"X-Request-Id": {"schema": {"type": "string"}}}}


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _path_parameter(name: str, says: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": says, "schema": _ref("schemas", "Id")}


def _query(name: str, says: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": says, "schema": schema}


def _object(required: Json, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBERS: Json = {"type": "object", "additionalProperties": {"type": "number"}}
_NAME_OR_NULL: Json = {"type": ["string", "null"]}


def _schemas() -> Json:
    identity = _ref("schemas", "Id")
    return {
        "Id": {"type": "string", "pattern": int64_pattern(), "description": "A 64-bit integer, as text.",
               "examples": ["10000000097"]},
        "Answer": _object(
            {
                "user_id": identity,
                "items": _array(_ref("schemas", "Item")) | {"maxItems": MAX_LIMIT},
                "source": {"enum": list(SOURCES), "description": "The rung that answered."},
                "cache": {"enum": ["none", "l1", "l2"]},
                "degraded": {"type": "boolean", "description": "A higher rung failed."},
                "release": _TEXT,
                "as_of": _TEXT | {"format": "date-time"},
                "age_s": _COUNT,
                "request_id": _TEXT,
            },
            {"model": _TEXT | {"description": "The routed model that ranked; the release's own ranker without it."},
             "variant": {"enum": list(VARIANTS)},
             "explain": _object({"rungs": _array(_object(
                {"rung": _TEXT, "outcome": _TEXT, "ms": {"type": "number"}, "without": _array(_TEXT)}))})},
        ),
        "Item": _object(
            {"user_id": identity, "rank": {"type": "integer", "minimum": 1}, "score": {"type": "number"},
             "reasons": _array(_ref("schemas", "Reason"))},
            {"explain": _object({"sources": _array(_TEXT), "features": _NUMBERS})},
        ),
        "Reason": _object({"kind": _TEXT}, {"attribute": _TEXT, "value": _TEXT, "count": _COUNT}),
        "Mutual": _object(
            {"user_id": identity, "other_id": identity, "count": _COUNT, "friends": _array(identity)}
        ),
        "Event": _object(
            {"event_id": {"type": "string", "pattern": "^[!-~]{1,128}$"}, "type": {"enum": list(EVENT_TYPES)},
             "user_id": identity, "at": _TEXT | {"format": "date-time"}},
            {"other_id": identity, "position": {"type": "integer", "minimum": 1, "maximum": MAX_POSITION}},
        ),
        "EventsTaken": _object(
            {"accepted": _COUNT, "rejected": _array(_object({"index": _COUNT, "code": _TEXT, "detail": _TEXT}))}
        ),
        "Releases": _object(
            {"current": _NAME_OR_NULL, "served": _NAME_OR_NULL, "releases": _array(_ref("schemas", "Release"))}
        ),
        "Release": _object(
            {"release_id": _TEXT, "as_of": _TEXT | {"format": "date-time"}, "users": _COUNT, "metrics": _NUMBERS,
             "peers_recall": _NUMBERS}
        ),
        "Alive": _object({"status": {"const": "alive"}}),
        "Ready": _object(
            {"status": {"const": "ready"}, "release": _TEXT, "as_of": _TEXT,
             "live_facts": {"enum": ["read", "failing"]}}
        ),
        "Problem": _object(
            {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT, "instance": _TEXT}
        ),
    }  # fmt: skip
