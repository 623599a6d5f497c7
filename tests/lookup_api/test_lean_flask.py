"""Flask without its idle parts answers as Flask does."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, current_app, request
from hypothesis import given
from hypothesis import strategies as st

from lookup_api.lean_flask import Answer, LeanFlask

PATHS = ("/v1/users/5/recommendations", "/v1/users/a%20b/recommendations", "/v1/users/%D9%A3/recommendations",
         "/v1/users//recommendations", "/v1/users/5/6/recommendations", "/v1/users/5/recommendations/",
         "/v1/users/5%2F6/recommendations", "/v1/users/recommendations", "/other",
         "/nothing", "/", "/v1/users/recommendations/recommendations")  # fmt: skip


def filled(app: Flask) -> Flask:
    def view(user_id: str) -> Any:
        said = f"{user_id}|{request.args.get('q')}|{request.headers.get('X-A')}|{request.host}|{current_app.name}"
        headers = [("Content-Type", "text/plain")]
        return Answer(said.encode(), headers) if isinstance(app, LeanFlask) else Response(said, headers=headers)

    def other() -> Any:
        body = request.get_data()
        return Answer(body, []) if isinstance(app, LeanFlask) else Response(body)

    app.url_map.merge_slashes = False
    app.add_url_rule("/v1/users/<user_id>/recommendations", "view", view, methods=["GET"])
    app.add_url_rule("/other", "other", other, methods=["GET", "POST"])
    return app


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    lean = filled(LeanFlask("app"))
    assert isinstance(lean, LeanFlask)
    lean.put_first("view")
    return lean.test_client(), filled(Flask("app", static_folder=None)).test_client()


def same(both: tuple[Any, Any], ask: Callable[[Any], Any]) -> None:
    lean, plain = (ask(client) for client in both)
    assert (lean.status_code, lean.data) == (plain.status_code, plain.data)
    assert lean.headers.get("Allow") == plain.headers.get("Allow")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT"])
def test_paths_lead_where_flask_s_lead(both: tuple[Any, Any], path: str, method: str) -> None:
    same(both, lambda client: client.open(f"{path}?q=1", method=method, headers={"X-A": "b"}, data=b"body"))


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_argument_arrives_as_flask_s_does(both: tuple[Any, Any], user: str, query: str) -> None:
    from urllib.parse import quote

    path = f"/v1/users/{quote(user, safe='')}/recommendations?q={quote(query)}"
    same(both, lambda client: client.get(path))


def test_an_answer_has_its_length_and_head_has_no_body(both: tuple[Any, Any]) -> None:
    client = both[0]
    found = client.get(PATHS[0])
    assert found.headers["Content-Length"] == str(len(found.data))
    head = client.head(PATHS[0])
    assert (head.data, head.headers["Content-Length"]) == (b"", found.headers["Content-Length"])


@pytest.mark.parametrize("hook", ["before_request", "after_request", "teardown_request", "teardown_appcontext"])
def test_a_hook_that_would_never_run_is_refused(hook: str) -> None:
    with pytest.raises(TypeError, match="no hooks"):
        getattr(LeanFlask("app"), hook)(lambda: None)


@pytest.mark.parametrize("path", ["//v1/users/5/recommendations", "///other", "//other"])
def test_a_doubled_slash_leads_nowhere(both: tuple[Any, Any], path: str) -> None:
    """What looks at the path before Flask, as the check of scopes does, must see the path that is matched."""
    assert both[0].get("/", environ_overrides={"PATH_INFO": path}).status_code == 404
