"""The least that Flask can do at the lookup's path: the measure of what the lookup itself costs."""

from flask import Flask, Response


def create_app() -> Flask:
    app = Flask("empty")

    @app.get("/v1/users/<user_id>/recommendations")
    def empty(user_id: str) -> Response:
        return Response(b"{}", content_type="application/json")

    @app.get("/readyz")
    def ready() -> Response:
        return Response(b"{}", content_type="application/json")

    return app
