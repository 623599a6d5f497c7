"""Headers: those that many answers share, and what a caller says in some."""

import re
from collections.abc import Mapping
from typing import Any

JSON = "application/json"
SAFE = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
"""Of answers that are no pages: nothing is run, framed, guessed at or read by another origin."""

PAGE = (
    ("X-Content-Type-Options", "nosniff"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)
"""Of pages and what they load: all of it comes from here."""

NO_STORE = (("Cache-Control", "no-store"),)
REVALIDATED = (("Cache-Control", "private, no-cache"), ("Vary", "Accept-Encoding, Authorization, X-Api-Key"))
"""A client may keep the answer, and asks each time whether it still holds: live facts change it at any moment."""

_GZIP = re.compile(r"(?:^|[,\s])gzip(?!\s*;\s*q=0(?:\.0*)?(?:\s*(?:,|$)))", re.IGNORECASE)


def accepts_gzip(environ: Mapping[str, Any]) -> bool:
    found: str | None = environ.get("HTTP_ACCEPT_ENCODING")
    return found is not None and _GZIP.search(found) is not None


def knows(environ: Mapping[str, Any], tag: str) -> bool:
    """Whether the caller's If-None-Match names the tag; weak and strong are compared alike, as for reading they are."""
    found: str | None = environ.get("HTTP_IF_NONE_MATCH")
    return found is not None and (tag.removeprefix("W/") in found or found.strip() == "*")
