"""Pages and what they load, made once: compressed, tagged, and served from memory."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from flask import request

from lookup_api.docs_page import docs_page
from lookup_api.headers import JSON, PAGE, SAFE, accepts_gzip, knows
from lookup_api.lean_flask import Answer, Headers, LeanFlask
from lookup_api.openapi import document
from lookup_api.request_ids import RequestIds

ASSETS = Path(__file__).parent / "assets"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip
FILES = {
    "/": "explorer.html",
    "/models": "models.html",
    "/releases": "releases.html",
    "/assets/explorer.js": "explorer.js",
    "/assets/graph.js": "graph.js",
    "/assets/models.js": "models.js",
    "/assets/releases.js": "releases.js",
    "/assets/door.js": "door.js",
    "/assets/page.css": "page.css",
    "/assets/icon.svg": "icon.svg",
}
OPENAPI, DOCS = "/openapi.json", "/docs"
PATHS = (*FILES, OPENAPI, DOCS)


@dataclass(frozen=True)
class Page:
    """body: as it is, and compressed. headers: all but the request id."""

    body: bytes
    compressed: bytes
    tag: str
    headers: Headers

    @classmethod
    def of(cls, body: bytes, content_type: str) -> "Page":
        tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
        safe = SAFE if content_type == JSON else PAGE
        common = [("ETag", tag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"), *safe]
        return cls(body, gzip.compress(body, 9, mtime=0), tag, [("Content-Type", content_type), *common])

    def answer(self, environ: Mapping[str, Any], request_id: str) -> Answer:
        headers = [*self.headers, ("X-Request-Id", request_id)]
        if knows(environ, self.tag):
            return Answer(b"", headers[1:], "304 Not Modified")
        if accepts_gzip(environ):
            return Answer(self.compressed, [*headers, ("Content-Encoding", "gzip")])
        return Answer(self.body, headers)


def register(app: LeanFlask, most_events: int, most_candidates: int, request_ids: RequestIds) -> None:
    """most_events, most_candidates: in one request, for the document."""
    api = document(version("pymk"), most_events, most_candidates)
    found = {path: Page.of((ASSETS / name).read_bytes(), TYPES[Path(name).suffix]) for path, name in FILES.items()}
    found[OPENAPI] = Page.of(orjson.dumps(api), JSON)
    found[DOCS] = Page.of(docs_page(api).encode(), TYPES[".html"])

    def page() -> Answer:
        return found[request.path].answer(request.environ, request_ids.of(request.environ.get("HTTP_X_REQUEST_ID")))

    for path in found:
        app.add_url_rule(path, f"page {path}", page, methods=["GET"], provide_automatic_options=False)
