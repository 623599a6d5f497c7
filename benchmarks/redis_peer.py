"""The peer that anyone would write first: Flask, redis-py and jsonify, with the whole answer stored as JSON."""

import json
import os
import time
from collections.abc import Iterable
from datetime import datetime

import redis
from flask import Flask, Response, jsonify

URI_VARIABLE = "PYMK_BENCH_REDIS"
PREFIX = "recommendations:"


def create_app() -> Flask:
    app = Flask("redis_peer")
    client = redis.Redis.from_url(os.environ[URI_VARIABLE])

    @app.get("/v1/users/<int:user_id>/recommendations")
    def recommendations(user_id: int) -> Response | tuple[Response, int]:
        found = client.get(f"{PREFIX}{user_id}")
        if found is None:
            return jsonify(error="unknown user"), 404
        answer = json.loads(found)
        answer["age_s"] = int(time.time() - datetime.fromisoformat(answer["as_of"]).timestamp())
        return jsonify(answer)

    @app.get("/readyz")
    def ready() -> Response:
        return jsonify(status="ready")

    return app


def load(uri: str, answers: Iterable[tuple[int, bytes]]) -> None:
    client = redis.Redis.from_url(uri)
    pipe = client.pipeline(transaction=False)
    for number, (user_id, answer) in enumerate(answers, 1):
        pipe.set(f"{PREFIX}{user_id}", answer)
        if number % 1000 == 0:
            pipe.execute()
    pipe.execute()
    client.close()
