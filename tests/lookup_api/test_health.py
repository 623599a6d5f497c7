"""Whether a server lives and whether it is to be asked: before its first release, and once told to stop."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.suites.door import LIST, problem
from tests.suites.served_store import app_on, new_store


def test_ready_until_told_to_stop_alive_all_the_time(
    serve: Callable[..., FlaskClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "draining"
    monkeypatch.setenv("PYMK_DRAIN_FILE", str(flag))
    client = serve()
    assert client.get("/readyz").json["live_facts"] == "read"
    flag.touch()
    answer = client.get("/readyz")
    assert (answer.status_code, problem(answer)) == (503, "draining")
    assert client.get("/healthz").json == {"status": "alive"}
    assert client.get(LIST).status_code == 200


def test_alive_but_not_ready_before_the_first_release(tmp_path: Path) -> None:
    app = app_on(new_store(tmp_path))
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    for path in ("/readyz", LIST):
        answer = client.get(path)
        assert (answer.status_code, problem(answer)) == (503, "no-release")
        assert int(answer.headers["Retry-After"]) >= 1
    app.extensions["pymk"].stop()
