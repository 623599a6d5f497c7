"""GET /v1/models: asks, serialises; nothing is decided here."""

import logging
from dataclasses import dataclass

import orjson
from flask import request

from infra.errors import PymkError
from lookup_api.deadline import Deadline
from lookup_api.headers import JSON, NO_STORE, SAFE
from lookup_api.lean_flask import Answer, LeanFlask
from lookup_api.metrics import Metrics
from lookup_api.model_list import model_list
from lookup_api.problems import Problem
from lookup_api.request_ids import RequestIds
from lookup_api.root.catalog import Catalog

log = logging.getLogger(__name__)

MODELS = "/v1/models"
PATIENCE_S = 2.0
"""For the first look at the routes; whoever asks later has what is followed in the background."""


@dataclass(frozen=True)
class ModelRoutes:
    catalog: Catalog
    metrics: Metrics
    request_ids: RequestIds
    retry_after_s: int

    def register(self, app: LeanFlask) -> None:
        app.add_url_rule(MODELS, "models", self.models, methods=["GET"], provide_automatic_options=False)

    def models(self) -> Answer:
        """Routes of all surfaces, and how models have done since the server started."""
        try:
            routes = self.catalog.routes(Deadline.after(PATIENCE_S))
        except PymkError as error:
            log.error("the routes of models cannot be told: %s", error)
            later = {"Retry-After": str(self.retry_after_s)}
            raise Problem(503, "store-unreadable", "The store cannot be read now.", later) from error
        body = orjson.dumps(model_list(routes, self.metrics.collected()))
        request_id = self.request_ids.of(request.environ.get("HTTP_X_REQUEST_ID"))
        return Answer(body, [("Content-Type", JSON), ("X-Request-Id", request_id), *NO_STORE, *SAFE])
