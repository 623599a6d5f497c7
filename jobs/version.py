"""The version of the code, part of every artifact id: changed code never takes an older code's work for its own."""

import hashlib
import subprocess
from importlib.metadata import version
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_GIT = ("git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
_GIT_S = 10.0
_ROOMS = ("infra", "jobs", "gnn", "index", "lookup_api/ranking")


def source_digest(root: Path) -> str:
    """First 12 hex digits of a sha256 over the names and bytes of the Python files that decide what stages make."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """The git commit of the checkout that this code is in, with `-dirty` where files differ from it.

    None where the code is in no checkout, git does not tell, or files are others by now than those that run.
    """
    if not (_ROOT / ".git").exists() or _version() != VERSION:
        return None
    try:
        told = subprocess.run(_GIT, cwd=_ROOT, capture_output=True, text=True, timeout=_GIT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def _version() -> str:
    return f"{version('pymk')}+{source_digest(_ROOT)}"


VERSION = _version()
