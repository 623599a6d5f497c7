"""Releases: immutable manifests that name one consistent family of artifacts, and the pointer CURRENT.

`{store}/releases/{release_id}.json` never changes once written. `{store}/CURRENT` names the release that is served
and moves by compare-and-swap. Releases are ordered by as-of, then delta number; an older one never replaces a newer
one unless forced.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from infra.artifacts import Manifest, check_name, drop_cached, find_manifest, is_artifact_id, open_artifact, prefix_of
from infra.errors import Conflict, CorruptArtifact, NotFound, PymkError, StoreError
from infra.store import ObjectStore

RELEASE_VERSION = 1
CURRENT = "CURRENT"
FOLDER = "releases"
HISTORY = 20
"""Releases that CURRENT remembers to have named, newest first, for rollback."""


@dataclass(frozen=True)
class ArtifactEntry:
    """One artifact of a release; path is its data folder relative to the store."""

    artifact_id: str
    path: str
    rows: int
    bytes: int
    content_hash: str


@dataclass(frozen=True)
class Release:
    """as_of: RFC 3339 UTC. parents: the release that was served when this one was made. delta: 0 for a nightly."""

    release_id: str
    as_of: str
    delta: int
    parents: tuple[str, ...]
    artifacts: dict[str, ArtifactEntry]
    schema_version: int = RELEASE_VERSION

    @property
    def order(self) -> tuple[datetime, int]:
        return (datetime.fromisoformat(self.as_of), self.delta)

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Release":
        try:
            values = json.loads(data)
            if values["schema_version"] != RELEASE_VERSION:
                raise CorruptArtifact(
                    f"{where}: release version {values['schema_version']}, this code reads {RELEASE_VERSION}"
                )
            entries = {kind: ArtifactEntry(**entry) for kind, entry in values.pop("artifacts").items()}
            return cls(artifacts=entries, parents=tuple(values.pop("parents")), **values)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{where}: not a release: {error}") from error


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
            return cls(release_id, tuple(values.get("history", ())), tuple(values.get("withdrawn", ())))
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{where}: not a release pointer: {error}") from error

    def moved_to(self, release_id: str) -> "Pointer":
        """Forward, to a release that is published now."""
        kept = [r for r in (self.release_id, *self.history) if r != release_id]
        return Pointer(release_id, tuple(kept[:HISTORY]), tuple(r for r in self.withdrawn if r != release_id))

    def back_to(self, release_id: str) -> "Pointer":
        """Back, to a release that was served before; the one served now is withdrawn."""
        at = self.history.index(release_id) + 1 if release_id in self.history else 0
        left = [r for r in (self.release_id, *self.withdrawn) if r != release_id]
        return Pointer(release_id, self.history[at:], tuple(left[:HISTORY]))


class ReleaseStore:
    """The releases of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def make(self, manifests: Mapping[str, Manifest]) -> Release:
        """Writes a nightly release of one artifact a kind. The same artifacts give the same release.

        Raises CorruptArtifact when the artifacts do not belong together.
        """
        check_consistent(manifests)
        entries = {
            kind: ArtifactEntry(
                m.artifact_id, f"{prefix_of(kind, m.artifact_id)}/data", m.rows, m.size_bytes, m.content_hash
            )
            for kind, m in sorted(manifests.items())
        }
        as_of = next(iter(manifests.values())).as_of
        digest = hashlib.sha256(orjson.dumps([(k, e.artifact_id) for k, e in entries.items()])).hexdigest()
        release_id = f"{as_of.replace('-', '').replace(':', '').partition('.')[0].rstrip('Z')}Z-{digest[:12]}"
        served = self._pointer()
        parents = (served[0].release_id,) if served and served[0].release_id != release_id else ()
        release = Release(release_id, as_of, 0, parents, entries)
        try:
            self.store.put(_key(release_id), release.to_json(), if_absent=self.store.conditional_puts)
        except Conflict:
            return self.get(release_id)
        return release

    def get(self, release_id: str) -> Release:
        """Raises NotFound naming the releases there are."""
        key = _key(check_name(release_id, "release id"))
        try:
            return Release.from_json(self.store.get(key).data, f"{self.store.uri}/{key}")
        except NotFound:
            raise NotFound(f"{self.store.uri}: no release {release_id}", "`pymk release list` shows them.") from None

    def list(self) -> list[Release]:
        """All releases, oldest first."""
        ids = [i.key.removeprefix(f"{FOLDER}/").removesuffix(".json") for i in self.store.list(f"{FOLDER}/")]
        return sorted((self.get(i) for i in ids), key=lambda r: (r.order, r.release_id))

    def current_id(self) -> str | None:
        """What CURRENT names: one small read."""
        pointer = self._pointer()
        return pointer[0].release_id if pointer else None

    def current(self) -> Release | None:
        """The served release, None before the first one."""
        release_id = self.current_id()
        return self.get(release_id) if release_id else None

    def publish(self, release: Release, *, force: bool = False) -> bool:
        """Points CURRENT at the release.

        False, and CURRENT stays, when a newer release is served or this one was withdrawn and `force` is not given.
        """
        self._refuse_without_conditions()
        while True:
            found = self._pointer()
            if found:
                pointer, _ = found
                if pointer.release_id == release.release_id:
                    return True
                newer_served = self.get(pointer.release_id).order > release.order
                if not force and (newer_served or release.release_id in pointer.withdrawn):
                    return False
            if self._swap(found, found[0].moved_to(release.release_id) if found else Pointer(release.release_id)):
                return True

    def rollback(self, to: str | None = None) -> Release:
        """Points CURRENT back at `to`, or at the release it named before, once that verifies."""
        self._refuse_without_conditions()
        found = self._pointer()
        if not found:
            raise PymkError(f"{self.store.uri}: nothing was published yet", "Run `pymk run` first.")
        target = to or next(iter(found[0].history), None)
        if target is None:
            raise PymkError(f"{self.store.uri}: CURRENT has no earlier release", "Name one with --to ID.")
        release = self.get(target)
        self.verify(release)
        while found and found[0].release_id != target and not self._swap(found, found[0].back_to(target)):
            found = self._pointer()
        return release

    def verify(self, release: Release) -> None:
        """Reads every byte of the release. Raises CorruptArtifact or NotFound naming what is wrong."""
        manifests = {}
        for kind, entry in release.artifacts.items():
            opened = open_artifact(self.store, kind, entry.artifact_id)
            if opened.manifest.content_hash != entry.content_hash:
                raise CorruptArtifact(
                    f"{release.release_id}: {kind} has content hash {opened.manifest.content_hash}, "
                    f"the release names {entry.content_hash}"
                )
            manifests[kind] = opened.manifest
        check_consistent(manifests)

    def clean(self, keep: int, grace_s: float = 86_400.0) -> dict[str, Sequence[str]]:
        """Deletes old releases and artifacts that no kept release names.

        Kept: the newest `keep` releases, CURRENT, the release before it, and every artifact younger than `grace_s`
        seconds (a run may be about to use it). Folders that are no artifacts are never touched.
        Returns {"releases": [...], "artifacts": [...]}, what was deleted.
        """
        releases = self.list()
        found = self._pointer()
        kept_ids = {r.release_id for r in releases[-keep:]}
        if found:
            kept_ids |= {found[0].release_id, *found[0].history[:1]}
        kept = [r for r in releases if r.release_id in kept_ids]
        doomed = [r for r in releases if r.release_id not in kept_ids]
        for release in doomed:
            self.store.delete(_key(release.release_id))
        removed = list(self._remove_artifacts(_named(kept), grace_s))
        self.store.clean_scratch(grace_s)
        return {"releases": [r.release_id for r in doomed], "artifacts": removed}

    def _remove_artifacts(self, kept: set[tuple[str, str]], grace_s: float) -> Iterator[str]:
        """Deletes artifacts that are not kept and did not change for `grace_s` seconds; yields their paths."""
        now = time.time()
        for kind in self.store.folders(""):
            for artifact in self.store.folders(f"{kind}/"):
                if (kind, artifact) in kept or not is_artifact_id(artifact):
                    continue
                prefix = f"{prefix_of(kind, artifact)}/"
                newest = max((i.modified_s for i in self.store.list(prefix)), default=0.0)
                if now - newest >= grace_s:
                    self.store.delete_folder(prefix)
                    drop_cached(self.store, kind, artifact)
                    yield prefix.rstrip("/")

    def _swap(self, found: tuple[Pointer, str] | None, pointer: Pointer) -> bool:
        """Writes CURRENT if it still is what was found."""
        data = orjson.dumps(asdict(pointer), option=orjson.OPT_INDENT_2)
        try:
            if found:
                self.store.put(CURRENT, data, if_match=found[1])
            else:
                self.store.put(CURRENT, data, if_absent=True)
        except Conflict:
            return False
        return True

    def _pointer(self) -> tuple[Pointer, str] | None:
        try:
            stored = self.store.get(CURRENT)
        except NotFound:
            return None
        return Pointer.from_json(stored.data, f"{self.store.uri}/{CURRENT}"), stored.etag

    def _refuse_without_conditions(self) -> None:
        if not self.store.conditional_puts:
            raise StoreError(
                f"{self.store.uri}: the endpoint ignores conditional puts, so a publish could tear",
                "Use a store that honours If-Match and If-None-Match.",
            )


def check_consistent(manifests: Mapping[str, Manifest]) -> None:
    """Raises CorruptArtifact unless every artifact has the same as-of and was made from the others of the family."""
    times = {m.as_of for m in manifests.values()}
    if len(times) > 1:
        raise CorruptArtifact(f"artifacts of different as-of in one release: {', '.join(sorted(times))}")
    for kind, manifest in manifests.items():
        for parent, parent_id in manifest.parents.items():
            if parent in manifests and manifests[parent].artifact_id != parent_id:
                raise CorruptArtifact(
                    f"{kind} {manifest.artifact_id} was made from {parent} {parent_id}, "
                    f"the release holds {parent} {manifests[parent].artifact_id}",
                    "Run the later stages again.",
                )


def manifests_of(store: ObjectStore, release: Release) -> dict[str, Manifest]:
    """The manifest of each artifact. Raises NotFound when one is gone."""
    found = {}
    for kind, entry in release.artifacts.items():
        manifest = find_manifest(store, kind, entry.artifact_id)
        if manifest is None:
            raise NotFound(f"{release.release_id}: {entry.path} is gone", "Roll back, or run the stage again.")
        found[kind] = manifest
    return found


def describe(release: Release) -> dict[str, Any]:
    """The release as `pymk release show --json` prints it."""
    keys = ("path", "rows", "bytes", "content_hash", "artifact_id")
    return {
        "release_id": release.release_id,
        "as_of": release.as_of,
        "parents": list(release.parents),
        "delta": release.delta,
        "artifacts": {kind: {k: getattr(e, k) for k in keys} for kind, e in release.artifacts.items()},
    }


def _named(releases: Iterable[Release]) -> set[tuple[str, str]]:
    return {(kind, entry.artifact_id) for release in releases for kind, entry in release.artifacts.items()}


def _key(release_id: str) -> str:
    return f"{FOLDER}/{release_id}.json"
