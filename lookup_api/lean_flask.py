"""Flask without what this API has no use for: sessions, signals, hooks, blueprints and views that are coroutines.

Of the CPU time that plain Flask spends on an empty route, this saves most: the route that is asked for most is matched
by two comparisons, headers are taken as they are, and werkzeug's request is built only where somebody looks into it.
Hooks such as `before_request` would be ignored, so registering one is refused.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import NotFound
from werkzeug.routing import MapAdapter, Rule

Headers = list[tuple[str, str]]
BUILT_LATE = frozenset({"headers", "scheme", "server", "root_path", "query_string", "remote_addr"})


class Answer(Response):
    """A body that is all there, and all its headers but Content-Length."""

    def __init__(self, body: bytes, headers: Headers, status: str = "200 OK") -> None:
        self.body = body
        self.fields = headers
        self.line = status

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = self.body
        if body or self.line[:3] != "304":
            self.fields.append(("Content-Length", str(len(body))))
        start_response(self.line, self.fields)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


class LeanRequest(Request):
    """Method, path and environ at once; the rest of werkzeug's request when it is first asked for."""

    def __init__(self, environ: dict[str, Any], populate_request: bool = True, shallow: bool = False) -> None:
        path: str = environ.get("PATH_INFO", "")
        if path.isascii() and path.startswith("/") and not path.startswith("//"):
            self.environ = environ
            self.shallow = shallow
            self.method = environ["REQUEST_METHOD"]
            self.path = path
        else:
            super().__init__(environ, populate_request, shallow)

    def __getattr__(self, name: str) -> Any:
        if name in BUILT_LATE and name not in self.__dict__:
            super().__init__(self.environ, False, self.shallow)
            return self.__dict__[name]
        raise AttributeError(name)


class NoSession(SessionInterface):
    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none

    def is_null_session(self, obj: object) -> bool:
        return True


class FirstRoute:
    """Stands for werkzeug's adapter: matches one route itself and asks werkzeug about all others."""

    def __init__(self, app: "LeanFlask", request: Request) -> None:
        self._app = app
        self._request = request

    def match(self, return_rule: bool = True) -> tuple[Rule, Mapping[str, Any]]:
        request = self._request
        if request.environ["PATH_INFO"].startswith("//"):
            raise NotFound  # werkzeug would match it as if it began with one, behind the back of whoever looked at it
        found = self._app.first_match(request.path) if request.method in ("GET", "HEAD") else None
        if found is not None:
            return found
        return self._werkzeug().match(return_rule=True)

    def _werkzeug(self) -> MapAdapter:
        found = Flask.create_url_adapter(self._app, self._request)
        assert found is not None
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._werkzeug(), name)


class LeanFlask(Flask):
    """Call `put_first` with the route that is asked for most, of the form /before/<argument>/after."""

    request_class = LeanRequest
    session_interface = NoSession()

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.url_map.merge_slashes = False
        self._first: tuple[Rule, str, str, str] | None = None

    def put_first(self, endpoint: str) -> None:
        rule = next(self.url_map.iter_rules(endpoint))
        before, _, rest = rule.rule.partition("<")
        argument, _, after = rest.partition(">")
        self._first = (rule, before, argument, after)

    def first_match(self, path: str) -> tuple[Rule, dict[str, Any]] | None:
        """The first route and its argument; None for another path."""
        if self._first is None:
            return None
        rule, before, argument, after = self._first
        if not (path.startswith(before) and path.endswith(after)):
            return None
        value = path[len(before) : -len(after)]
        return (rule, {argument: value}) if value and "/" not in value else None

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        return None if request is None else FirstRoute(self, request)  # type: ignore[return-value]

    def full_dispatch_request(self) -> Response:
        """The view's answer, or that of the handler of what it raised: there are no signals and no hooks."""
        try:
            return self.dispatch_request()  # type: ignore[return-value]
        except Exception as error:
            return self.make_response(self.handle_user_exception(error))

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        pass

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        pass


def _refused(*_: Any) -> Any:
    raise TypeError("LeanFlask runs no hooks: do it in the view or in lookup_api.door")


for _hook in ("before_request", "after_request", "teardown_request", "teardown_appcontext", "url_value_preprocessor"):
    setattr(LeanFlask, _hook, _refused)
