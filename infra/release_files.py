"""What the files of a release hold: the release itself, who passed its gates over, and the pointer CURRENT.

Whatever bytes are in place of one raise CorruptArtifact, which says how to mend it.
"""

import json
from collections.abc import Collection, Iterable
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

    base, base_as_of: of a delta, the nightly that it extends; its artifacts are among those of the delta.
    overrides: read of files in which they were kept once; infra.release_records has them all. Never written.
    """

    release_id: str
    as_of: str
    delta: int
    parents: tuple[str, ...]
    artifacts: dict[str, ArtifactEntry]
    schema_version: int = RELEASE_VERSION
    overrides: tuple[Override, ...] = ()
    base: str | None = None
    base_as_of: str | None = None

    @property
    def time(self) -> datetime:
        """What the release knows is from before it."""
        return datetime.fromisoformat(self.as_of)

    @property
    def night(self) -> datetime:
        """As-of of the nightly: its own, or that of its base."""
        return datetime.fromisoformat(self.base_as_of or self.as_of)

    @property
    def order(self) -> tuple[datetime, int, datetime]:
        """Which of two releases is the newer one: by the nightly, then by the delta on it."""
        return (self.night, self.delta, self.time)

    @property
    def nightly(self) -> str:
        """The id of the nightly release: its own, or that of its base."""
        return self.base or self.release_id

    def to_json(self) -> bytes:
        values = asdict(self)
        del values["overrides"]
        if self.base is None:
            del values["base"], values["base_as_of"]
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
            release._check()
            return release
        except _MALFORMED as error:
            fix = "Put back a copy of the file, or delete it."
            raise CorruptArtifact(f"{where}: not a release: {_said(error)}", fix) from error

    def _check(self) -> None:
        """Raises UsageError, TypeError or ValueError for values that no release has."""
        for name in (self.release_id, self.nightly):
            check_name(name, "release id")
        if self.time.tzinfo is None or self.order[0].tzinfo is None or type(self.delta) is not int:
            raise ValueError(f"as of {self.as_of}, delta {self.delta}")
        if (self.base is None) != (self.base_as_of is None) or (self.base is None) != (self.delta == 0):
            raise ValueError(f"delta {self.delta} on {self.base} as of {self.base_as_of}")


@dataclass(frozen=True)
class Pointer:
    """The content of CURRENT.

    history: releases that it named before and may go back to, newest first. withdrawn: releases that were rolled back
    from; they, and deltas on them, are not published again unless forced.
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

    def moved_to(self, release_id: str, nightly: str | None = None) -> "Pointer":
        """Forward, to a release that is published now. nightly: the one that it extends, which counts as served too."""
        kept = [r for r in (self.release_id, *self.history) if r != release_id]
        named = (release_id, nightly)
        return Pointer(release_id, tuple(kept[:HISTORY]), tuple(r for r in self.withdrawn if r not in named))

    def back_to(self, release_id: str, *, leaving: Iterable[str] = (), staying: Collection[str] = ()) -> "Pointer":
        """Back, to a release that was served before; the one served now is withdrawn, and so are those of `leaving`,
        but none of `staying`."""
        at = self.history.index(release_id) + 1 if release_id in self.history else 0
        left = dict.fromkeys((self.release_id, *leaving, *self.withdrawn))
        withdrawn = [r for r in left if r != release_id and r not in staying]
        return Pointer(release_id, self.history[at:], tuple(withdrawn[:HISTORY]))

    def has_withdrawn(self, release: Release) -> bool:
        """Whether the release, or the nightly that it extends, was rolled back from."""
        return release.release_id in self.withdrawn or release.nightly in self.withdrawn


def _check_version(found: Any, known: int, what: str) -> None:
    if found != known:
        raise CorruptArtifact(f"{what} version {found}, this code reads {known}")


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list of release ids")
    return tuple(check_name(value, "release id") for value in values)
