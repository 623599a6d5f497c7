"""The part of the API's document about scores: POST /v1/score and GET /v1/scores/{id}."""

from infra.keys import READ
from infra.model_routes import VARIANTS
from lookup_api.openapi_parts import COUNT, TEXT, Json, answer, array, operation, query, record, ref
from lookup_api.root.root_metrics import FAILED, LATE, UNKNOWN
from lookup_api.score_request import LONGEST_NAME, MOST_MODELS, VARIANT

_FLAG: Json = {"type": "integer", "enum": [0, 1]}


def score_paths(most: int) -> Json:
    """most: people in one request."""
    identity = {"name": "work_id", "in": "path", "required": True, "description": "The id that the request was given.",
                "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}  # fmt: skip
    later = operation(
        "scores", "What became of a request that was queued", READ, [identity],
        {"200": answer("LaterScores", "Done, or failed."), "202": answer("Queued", "Not yet."),
         "404": ref("responses", "NotFound")},
    )  # fmt: skip
    return {"/v1/score": {"post": _score(most)}, "/v1/scores/{work_id}": {"get": later}}


def _score(most: int) -> Json:
    name = TEXT | {"minLength": 1, "maxLength": LONGEST_NAME}
    chosen = {"enum": list(VARIANTS), "description": "Of surfaces whose canary clients choose."}
    body = record({
        "user_id": ref("schemas", "Id"),
        "candidate_ids": array(ref("schemas", "Id")) | {"minItems": 1, "maxItems": most, "uniqueItems": True},
        "models": array(name) | {"minItems": 1, "maxItems": MOST_MODELS, "uniqueItems": True,
                                 "description": "Surfaces, models (the version pushed last), or NAME@VERSION."},
    }, {VARIANT: chosen})  # fmt: skip
    found = operation(
        "score", "Scores of given people for one user, by one or several models", READ,
        [query("async", "1 queues the request.", _FLAG)],
        {"200": answer("Scores", "The scores."), "202": answer("Queued", "Queued; the header Location names it."),
         "404": ref("responses", "NotFound"), "413": ref("responses", "TooLarge"), "415": ref("responses", "NotJson")},
        "InvalidBody",
    )  # fmt: skip
    found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found


def score_schemas() -> Json:
    def by_name(values: Json, says: str) -> Json:
        return {"type": "object", "additionalProperties": values, "description": says}

    score = {"type": ["number", "null"]}
    return {
        "Scores": record(
            {
                "user_id": ref("schemas", "Id"),
                "scores": by_name(array(score), "By name as asked: one a person; null for who is barred."),
                "models": by_name(TEXT, "Who scored, by name as asked: NAME@VERSION, or release."),
                "failed": by_name({"enum": [FAILED, LATE, UNKNOWN]}, "Names that have no scores, and why."),
                "defaulted": by_name(
                    record({"missing": COUNT, "stale": COUNT, "values": COUNT}),
                    "By model: of its inputs' values, those that took its default.",
                ),
                "barred": array(ref("schemas", "Id")) | {"description": "People whom the user must not be shown."},
                "degraded": {"type": "boolean", "description": "A model failed, or live facts could not be read."},
                "release": TEXT,
                "as_of": TEXT | {"format": "date-time"},
                "age_s": COUNT,
            },
            {"request_id": TEXT},
        ),
        "Queued": record(
            {"id": TEXT, "status": {"enum": ["queued", "running"]}, "request_id": TEXT}, {"kept_s": {"type": "number"}}
        ),
        "LaterScores": record(
            {"id": TEXT, "status": {"enum": ["done", "failed"]}, "request_id": TEXT},
            {"answer": ref("schemas", "Scores"), "why": TEXT},
        ),
    }
