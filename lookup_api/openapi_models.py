"""The part of the API's document about models: GET /v1/models."""

from infra.keys import ADMIN
from infra.model_routes import CANARY, SHADOW, STABLE
from lookup_api.openapi_parts import COUNT, NUMBERS, TEXT, Json, answer, array, operation, record, ref
from lookup_api.root.root_metrics import ANSWERED, FAILED, LATE, UNKNOWN


def model_paths() -> Json:
    found = operation(
        "models", "Where models are routed to, and how they have done since the server started", ADMIN, [],
        {"200": answer("Models", "Those routed to first.")},
    )  # fmt: skip
    return {"/v1/models": {"get": found}}


def model_schemas() -> Json:
    number = {"type": ["number", "null"]}
    stopped = record({"model": TEXT, "why": TEXT, "at": TEXT})
    canary = record({"model": TEXT, "share": {"type": "number"}, "sticky": {"enum": ["user", "client"]}})
    return {
        "Models": record({"surfaces": array(ref("schemas", "Surface")), "models": array(ref("schemas", "Model"))}),
        "Surface": record(
            {
                "surface": TEXT,
                "stable": TEXT | {"description": "NAME@VERSION, or release."},
                "canary": {"anyOf": [canary, {"type": "null"}]},
                "shadows": array(TEXT),
                "stopped": array(stopped) | {"description": "Canaries that were taken off, newest first."},
                "changed_at": TEXT,
                "by": TEXT,
            }
        ),
        "Model": record(
            {
                "model": TEXT,
                "roles": array(record({"surface": TEXT, "role": {"enum": [STABLE, CANARY, SHADOW]}})),
                "requests": COUNT,
                "outcomes": {
                    "type": "object",
                    "propertyNames": {"enum": [ANSWERED, FAILED, LATE, UNKNOWN]},
                    "additionalProperties": COUNT,
                },
                "unseen": {
                    "type": "object",
                    "additionalProperties": COUNT,
                    "description": "As a shadow, by what became of it: answered, failed, late, or why it was dropped.",
                },
                "p50_ms": number,
                "p99_ms": number,
                "values": COUNT,
                "defaulted": {
                    "type": "object",
                    "propertyNames": {"enum": ["missing", "stale"]},
                    "additionalProperties": COUNT,
                },
                "score_psi": number | {"description": "Stability index beside where the model learnt."},
                "input_psi": NUMBERS | {"description": "The same of its inputs."},
            }
        ),
    }
