"""Fixtures of the lookup API's tests: a store with one small release, and apps on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from infra.store import ObjectStore
from lookup_api.app import Parts
from tests.suites.served_store import app_on, new_store, publish_day


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = new_store(tmp_path)
    publish_day(store, 1, users=20)
    return store


@pytest.fixture
def serve(store: ObjectStore) -> Iterator[Callable[..., FlaskClient]]:
    """A client of an app with these settings; all are stopped at the end."""
    made: list[Parts] = []

    def start(**values: Any) -> FlaskClient:
        app = app_on(store, **values)
        made.append(app.extensions["pymk"])
        return app.test_client()

    yield start
    for parts in made:
        parts.stop()
