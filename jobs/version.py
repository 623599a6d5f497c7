"""The version of the code, part of every artifact id: changed code never takes an older code's work for its own."""

import hashlib
from importlib.metadata import version
from pathlib import Path

_ROOMS = ("infra", "jobs", "gnn", "index", "lookup_api/ranking")


def source_digest(root: Path) -> str:
    """First 12 hex digits of a sha256 over the names and bytes of the Python files that decide what stages make."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


VERSION = f"{version('pymk')}+{source_digest(Path(__file__).parents[1])}"
