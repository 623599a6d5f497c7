"""Releases whose serving tables were loaded into a host that many machines read, and which of them is served there.

Every load writes a set of tables of its own, so that loads at the same time, or one that died, never mix. A note says
whose it is and how far it is: loading, whole, about to go, or being removed. One note, moved by compare-and-swap,
names the release that is served; workers follow it and need no object store to do so.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import orjson

from infra.errors import Conflict, CorruptArtifact, NotFound, StoreError
from infra.kv import Int64, KeyValueReader
from infra.overlay_tables import OverlayTables
from infra.release_files import Pointer, Release
from infra.table_hosts import TableHost, TableSet

log = logging.getLogger(__name__)

CURRENT = "current"
NOTE_PREFIX = "tables:"
NOTE_VERSION = 1
BEAT_S = 10.0
"""Time between signs of life of a load."""
GRACE_S = 3600.0
"""A load without a sign of life for so long is dead; a release loaded within it may be about to be served."""

Block = tuple[str, Int64, npt.NDArray[np.uint8], Int64]
"""A table, and rows of it as KeyValueWriter.put takes them."""


class State(StrEnum):
    LOADING = "loading"
    WHOLE = "whole"
    DOOMED = "doomed"
    """Whole still; it goes unless somebody turns out to need it."""
    REMOVING = "removing"
    """Some of it may be gone."""


@dataclass(frozen=True)
class Loaded:
    """A note. beat_s: seconds since 1970 of the last sign of life."""

    release: Release
    tables: TableSet
    state: State
    content_hash: str
    beat_s: float

    @property
    def name(self) -> str:
        return f"{NOTE_PREFIX}{self.tables.name}"

    def to_json(self) -> bytes:
        values = {
            "version": NOTE_VERSION,
            "state": self.state,
            "beat_s": self.beat_s,
            "content_hash": self.content_hash,
            "tables": {"name": self.tables.name, "rows": dict(self.tables.rows)},
            "release": orjson.Fragment(self.release.to_json()),
        }
        return orjson.dumps(values)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Loaded":
        try:
            values = json.loads(data)
            if values["version"] != NOTE_VERSION:
                raise CorruptArtifact(f"{where}: version {values['version']}, this code reads {NOTE_VERSION}")
            rows = {str(table): int(count) for table, count in values["tables"]["rows"].items()}
            return cls(
                release=Release.from_json(orjson.dumps(values["release"]), where),
                tables=TableSet(str(values["tables"]["name"]), rows),
                state=State(values["state"]),
                content_hash=str(values["content_hash"]),
                beat_s=float(values["beat_s"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptArtifact(f"{where}: not a loaded release: {error}", "Remove that note.") from error


class LoadedReleases:
    """The releases of one host. Raises StoreError where the host fails."""

    def __init__(self, host: TableHost, clock: Callable[[], float] = time.time) -> None:
        self.host = host
        self._clock = clock

    def pointer(self) -> Pointer | None:
        """What is served and was before; None before the first load. Raises CorruptArtifact where it is damaged."""
        return self._parse(self.host.note(CURRENT))

    def releases(self) -> list[Release]:
        """The releases that are there whole, oldest first."""
        found = {loaded.release.release_id: loaded.release for loaded in self._notes() if loaded.state is State.WHOLE}
        return sorted(found.values(), key=lambda release: (release.order, release.release_id))

    def get(self, release_id: str) -> Release:
        """Raises NotFound for a release that is not there whole."""
        return self._whole(release_id).release

    def open(self, release_id: str) -> KeyValueReader:
        """Its tables, those of a delta over those of its base. Raises NotFound for what is not there whole."""
        loaded = self._whole(release_id)
        if loaded.release.base is None:
            return self.host.reader(loaded.tables)
        below = self.host.reader(self._whole(loaded.release.base).tables)
        return OverlayTables(self.host.reader(loaded.tables), below)

    def load(self, release: Release, content_hash: str, rows: Mapping[str, int], blocks: Iterable[Block]) -> bool:
        """Writes the tables of a release; false where it was there already, and `blocks` were not looked at.

        Of a delta only its own are written. rows: how many each table has. Raises CorruptArtifact where what was
        written does not have the content hash. A load that fails removes what it wrote, at once or, where the host is
        gone, at the next `clean`.
        """
        if self._find(release.release_id) is not None:
            return False
        self._require_base(release)
        tables = TableSet(f"{release.release_id}.{secrets.token_hex(4)}", rows)
        note = Loaded(release, tables, State.LOADING, content_hash, self._clock())
        self._replace(None, note)
        try:
            self._require_base(release)  # again: whoever removes it may not have seen this load yet
            writer = self.host.writer(tables)
            for table, keys, values, ends in blocks:
                writer.put(table, keys, values, ends)
                if self._clock() - note.beat_s >= BEAT_S:
                    note = self._replace(note, replace(note, beat_s=self._clock()))
            found = writer.finish()
            if found != content_hash:
                what = f"{release.release_id}: its tables have content hash {found}, its manifest says {content_hash}"
                raise CorruptArtifact(what, "Verify the release.")
            if self._find(release.release_id) is not None:  # another load was quicker, and may be served already
                self._remove(note)
                return False
            self._replace(note, replace(note, state=State.WHOLE, beat_s=self._clock()))
        except BaseException:
            with suppress(StoreError):
                self._remove(note)
            raise
        return True

    def switch(self, release_id: str, wanted: Callable[[], bool] = lambda: True) -> bool:
        """Serves a release that was loaded; false where it is served already, or not wanted any more. Raises NotFound,
        also where it, or the base of a delta, was just being removed; what was served then stays served.

        A release that was served before the one served now is gone back to, and that one is withdrawn. wanted: asked
        just before the switch, and again where another one came first: of two that ask the same, the last stands.
        """
        self._require(release_id)
        while True:
            stored = self.host.note(CURRENT)
            pointer = self._parse(stored)
            if (pointer is not None and pointer.release_id == release_id) or not wanted():
                return False
            moved = orjson.dumps(asdict(_moved(pointer, release_id)))
            if self.host.swap(CURRENT, stored, moved):
                break
        try:
            self._require(release_id)  # again: whoever removes it looks at what is served once its note says so
        except NotFound:
            self.host.swap(CURRENT, moved, stored)
            raise
        return True

    def clean(self, keep: int) -> list[str]:
        """Removes all but the served release and those before it, `keep` in all, and what dead loads left.

        The base of a delta stays as long as that.

        Returns the ids of releases that were removed.
        """
        pointer = self.pointer()
        notes = self._notes()
        served = (pointer.release_id, *pointer.history, *pointer.withdrawn) if pointer else ()
        kept = _kept(notes, served, keep)

        def gone(loaded: Loaded) -> bool:
            old = self._clock() - loaded.beat_s >= GRACE_S
            if loaded.state is State.WHOLE:
                return loaded.name not in kept and (old or loaded.release.release_id in served)
            return old or loaded.state is not State.LOADING

        doomed = sorted((loaded for loaded in notes if gone(loaded)), key=lambda one: one.release.base is None)
        return [loaded.release.release_id for loaded in doomed if self._retire(loaded)]

    def _notes(self) -> list[Loaded]:
        """Those that can be read, by name; a damaged one is logged."""
        found = []
        for name, data in sorted(self.host.notes().items()):
            if name.startswith(NOTE_PREFIX):
                try:
                    found.append(Loaded.from_json(data, f"{self.host.uri}, note {name}"))
                except CorruptArtifact as error:
                    log.warning("%s", error)
        return found

    def _find(self, release_id: str) -> Loaded | None:
        for loaded in self._notes():
            if loaded.state is State.WHOLE and loaded.release.release_id == release_id:
                return loaded
        return None

    def _whole(self, release_id: str) -> Loaded:
        found = self._find(release_id)
        if found is None:
            raise NotFound(f"{self.host.uri}: holds no release {release_id}", "Load it with `pymk release load`.")
        return found

    def _parse(self, stored: bytes | None) -> Pointer | None:
        return None if stored is None else Pointer.from_json(stored, f"{self.host.uri}, note {CURRENT}")

    def _replace(self, before: Loaded | None, after: Loaded) -> Loaded:
        """Writes a note. Raises Conflict where somebody else changed it."""
        if not self.host.swap(after.name, before.to_json() if before else None, after.to_json()):
            what = f"{self.host.uri}: the load of {after.release.release_id} was taken for dead and removed"
            raise Conflict(what, "Load it again.")
        return after

    def _require(self, release_id: str) -> None:
        """Raises NotFound unless a release is there whole, and its base."""
        self._require_base(self._whole(release_id).release)

    def _require_base(self, release: Release) -> None:
        if release.base is not None:
            self._whole(release.base)

    def _retire(self, loaded: Loaded) -> bool:
        """Removes a release unless it is needed; false where it is, or where somebody else is at it.

        What was whole is marked first, and only then is looked again who needs it. Who comes to need it says that
        first, in a note too, and then looks at this one again: so at least one of the two sees the other. What is
        needed from the start is never marked, and a mark that somebody who died left on it is taken off.
        """
        stored = self.host.note(loaded.name)
        if stored is not None and Loaded.from_json(stored, f"{self.host.uri}, note {loaded.name}") != loaded:
            return False
        if self._is_needed(loaded):
            self._spare(loaded)
            return False
        if stored is not None and loaded.state in (State.WHOLE, State.DOOMED):
            doomed = replace(loaded, state=State.DOOMED).to_json()
            try:
                if stored != doomed and not self.host.swap(loaded.name, stored, doomed):
                    return False
                needed = self._is_needed(loaded)
            except BaseException:
                with suppress(StoreError):
                    self._spare(loaded)
                raise
            if needed:
                self._spare(loaded)
                return False
            stored = doomed
        removing = replace(loaded, state=State.REMOVING).to_json()
        if stored is not None and stored != removing and not self.host.swap(loaded.name, stored, removing):
            return False
        self._remove(loaded)
        return True

    def _spare(self, loaded: Loaded) -> None:
        """Makes whole again what is marked. With a new time: a mark that follows is not taken for this one."""
        doomed = replace(loaded, state=State.DOOMED).to_json()
        self.host.swap(loaded.name, doomed, replace(loaded, state=State.WHOLE, beat_s=self._clock()).to_json())

    def _is_needed(self, loaded: Loaded) -> bool:
        """Whether a release without another copy is served, or the base of one that is loaded or being loaded."""
        pointer, notes = self.pointer(), [note for note in self._notes() if note.state is not State.REMOVING]
        needed = {note.release.base for note in notes} | ({pointer.release_id} if pointer else set())
        others = (note for note in notes if note.state is State.WHOLE and note.name != loaded.name)
        return loaded.release.release_id in needed and all(note.release != loaded.release for note in others)

    def _remove(self, loaded: Loaded) -> None:
        """The tables first and then the note, so that what a dying process leaves is found again."""
        note = self.host.note(loaded.name)
        if note is None:  # somebody else removed them, and whoever took long to notice may have written on
            self.host.drop(loaded.tables)
            return
        doomed = replace(loaded, state=State.REMOVING).to_json()
        if note == doomed or self.host.swap(loaded.name, note, doomed):
            self.host.drop(loaded.tables)
            self.host.swap(loaded.name, doomed, None)


def _moved(pointer: Pointer | None, release_id: str) -> Pointer:
    if pointer is None:
        return Pointer(release_id)
    return pointer.back_to(release_id) if release_id in pointer.history else pointer.moved_to(release_id)


def _kept(notes: Iterable[Loaded], served: Iterable[str], keep: int) -> set[str]:
    """Names of one note a release, for the first `keep` of those served that are there."""
    whole: dict[str, str] = {}
    for loaded in notes:
        if loaded.state is State.WHOLE:
            whole.setdefault(loaded.release.release_id, loaded.name)
    return {whole[release_id] for release_id in [one for one in served if one in whole][:keep]}
