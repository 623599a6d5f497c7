"""What the API's document is built of: operations, answers, problems and the forms of values."""

from typing import Any

Json = dict[str, Any]


def operation(
    name: str, summary: str, scope: str, parameters: list[Json], responses: Json, invalid: str | None = None
) -> Json:
    found: Json = {
        "operationId": name,
        "summary": summary,
        "description": f"Needs a key of scope `{scope}`, where keys are configured.",
        "security": [{"bearer": []}, {"header": []}],
        "parameters": parameters,
        "responses": responses | refusals(),
    }
    if invalid is not None:
        found["responses"]["400"] = ref("responses", invalid)
    return found


def open_operation(name: str, summary: str, schema: str) -> Json:
    return {"operationId": name, "summary": summary, "security": [], "responses": {"200": answer(schema, "So it is.")}}


def refusals() -> Json:
    return {
        "401": ref("responses", "NoKey"),
        "403": ref("responses", "WrongScope"),
        "429": ref("responses", "TooMany"),
        "503": ref("responses", "Unavailable"),
    }


_LATER = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}}
_ALLOW = {"Allow": {"description": "Those it takes.", "required": True, "schema": {"type": "string"}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
PROBLEMS: dict[str, tuple[str, Json]] = {
    "InvalidParameter": ("An id or a parameter does not parse, or there is no such parameter.", {}),
    "InvalidBody": ("The body is not what the schema says, or has too much of something.", {}),
    "NoKey": ("No key, or one that is unknown, revoked or expired.", _CHALLENGE),
    "WrongScope": ("The key is for something else.", _CHALLENGE),
    "MethodNotAllowed": ("Another method than this path takes.", _ALLOW),
    "NotFound": ("There is none of that name.", {}),
    "TooLarge": ("Too many bytes.", {}),
    "NotJson": ("The body is of another type.", {}),
    "TooMany": ("A rate limit is reached.", _LATER),
    "Unavailable": (
        "No release is served, what is stored cannot be read, events cannot be stored, no model answers, or too "
        "much is asked.",
        _LATER,
    ),
}


def problem(says: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": ref("schemas", "Problem")}}
    return response(says) | {"content": content, "headers": response(says)["headers"] | headers}


def answer(schema: str, says: str, etag: bool = False) -> Json:
    found = response(says) | {"content": {"application/json": {"schema": ref("schemas", schema)}}}
    if etag:
        found["headers"] |= {"ETag": {"schema": {"type": "string"}}, "Cache-Control": {"schema": {"type": "string"}}}
    return found


def response(says: str) -> Json:
    return {"description": says, "headers": {"X-Request-Id": {"schema": {"type": "string"}}}}


def ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def path_parameter(name: str, says: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": says, "schema": ref("schemas", "Id")}


def query(name: str, says: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": says, "schema": schema}


def record(required: Json, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
        "additionalProperties": False,
    }


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
NUMBERS: Json = {"type": "object", "additionalProperties": {"type": "number"}}
NAME_OR_NULL: Json = {"type": ["string", "null"]}
