"""What the files of a release hold: the release itself, who passed its gates over, and the pointer CURRENT.

Whatever bytes are in place of one raise CorruptArtifact, which says how to mend it.
"""

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import orjson

from infra.artifacts import check_name
from infra.errors import CorruptArtifact, UsageError

RELEASE_VERSION = 1
OVERRIDE_VERSION = 1
HISTORY = 20
"""Releases that CURRENT remembers to have named, newest first, for rollback."""

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError)
"""What reading JSON of any other shape raises."""


@dataclass(frozen=True)
class ArtifactEntry:
    """One artifact of a release; path is its data folder relative to the store."""

    artifact_id: str
    path: str
    rows: int
    bytes: int
    content_hash: str

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "ArtifactEntry":
        """Raises TypeError or UsageError."""
        entry = cls(**values)
        check_name(entry.artifact_id, "artifact id")
        for field in fields(entry):
            if type(getattr(entry, field.name)) is not field.type:
                raise TypeError(f"{field.name} is {getattr(entry, field.name)!r}")
        return entry


@dataclass(frozen=True)
class Override:
    """That somebody published a release which gates refused.

    at: RFC 3339 UTC. reason: in their words, if given. gates: {"gate", "detail"} of each that was passed over.
    replaced: the release that was served, and compared with. published: false where the command was cut off, so that
    nobody knows whether CURRENT moved.
    """

    at: str
    reason: str | None
    gates: tuple[dict[str, str], ...]
    replaced: str | None
    published: bool = True

    def to_json(self) -> bytes:
        values = asdict(self) | {"schema_version": OVERRIDE_VERSION}
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Override":
        try:
            values = json.loads(data)
            _check_version(values.pop("schema_version"), OVERRIDE_VERSION, f"{where}: override")
            return cls.from_values(values)
        except _MALFORMED as error:
            fix = "Put back a copy of the file, or delete it: the release itself is another file."
            raise CorruptArtifact(f"{where}: not an override: {_said(error)}", fix) from error

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "Override":
        """Raises TypeError or KeyError."""
        gates = tuple({"gate": str(gate["gate"]), "detail": str(gate["detail"])} for gate in values.pop("gates"))
        return cls(gates=gates, **values)


@dataclass(frozen=True)
class Release:
    """as_of: RFC 3339 UTC. parents: the release that was served when this one was made. delta: 0 for a nightly.

    overrides: read of files in which they were kept once; infra.release_records has them all. Never written.
    """

    release_id: str
    as_of: str
    delta: int
    parents: tuple[str, ...]
    artifacts: dict[str, ArtifactEntry]
    schema_version: int = RELEASE_VERSION
    overrides: tuple[Override, ...] = ()

    @property
    def order(self) -> tuple[datetime, int]:
        return (datetime.fromisoformat(self.as_of), self.delta)

    def to_json(self) -> bytes:
        values = asdict(self)
        del values["overrides"]
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Release":
        try:
            values = json.loads(data)
            _check_version(values["schema_version"], RELEASE_VERSION, f"{where}: release")
            entries = {
                check_name(kind, "artifact kind"): ArtifactEntry.from_values(entry)
                for kind, entry in values.pop("artifacts").items()
            }
            overrides = tuple(Override.from_values(one) for one in values.pop("overrides", []))
            parents = _names(values.pop("parents"))
            release = cls(artifacts=entries, parents=parents, overrides=overrides, **values)
            check_name(release.release_id, "release id")
            if release.order[0].tzinfo is None or type(release.delta) is not int:
                raise ValueError(f"as of {release.as_of}, delta {release.delta}")
            return release
        except _MALFORMED as error:
            fix = "Put back a copy of the file, or delete it."
            raise CorruptArtifact(f"{where}: not a release: {_said(error)}", fix) from error


@dataclass(frozen=True)
class Pointer:
    """The content of CURRENT.

    history: releases that it named before and may go back to, newest first. withdrawn: releases that were rolled back
    from; they are not published again unless forced.
    """

    release_id: str
    history: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Pointer":
        try:
            values = json.loads(data)
            release_id = check_name(values["release_id"], "release id")
            return cls(release_id, _names(values.get("history", [])), _names(values.get("withdrawn", [])))
        except _MALFORMED as error:
            fix = "`pymk release publish ID --force` replaces it; `pymk release list` shows the ids."
            raise CorruptArtifact(f"{where}: not a release pointer: {_said(error)}", fix) from error

    def moved_to(self, release_id: str) -> "Pointer":
        """Forward, to a release that is published now."""
        kept = [r for r in (self.release_id, *self.history) if r != release_id]
        return Pointer(release_id, tuple(kept[:HISTORY]), tuple(r for r in self.withdrawn if r != release_id))

    def back_to(self, release_id: str) -> "Pointer":
        """Back, to a release that was served before; the one served now is withdrawn."""
        at = self.history.index(release_id) + 1 if release_id in self.history else 0
        left = [r for r in (self.release_id, *self.withdrawn) if r != release_id]
        return Pointer(release_id, self.history[at:], tuple(left[:HISTORY]))


def _check_version(found: Any, known: int, what: str) -> None:
    if found != known:
        raise CorruptArtifact(f"{what} version {found}, this code reads {known}")


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list of release ids")
    return tuple(check_name(value, "release id") for value in values)
