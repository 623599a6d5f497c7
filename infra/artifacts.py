"""Artifacts: immutable folders of data files beside a manifest, `{store}/{kind}/{artifact_id}/`.

An artifact is complete when its manifest is there, and trusted when every file has the size and sha256 the manifest
names. Its id derives from kind, parents, settings and as-of, so a finished stage is found instead of redone.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from infra.errors import CorruptArtifact, Fenced, NotFound, PymkError, UsageError
from infra.store import ObjectStore
from infra.store_folder import FolderStore
from infra.stored_files import (
    FileEntry,
    cached,
    check_relative,
    copies_of,
    entries_below,
    entry_of,
    local_files,
    verify_entries,
)
from infra.times import format_time

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
DATA = "data"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")


@dataclass(frozen=True)
class Manifest:
    """What an artifact is, what made it, and what it must contain.

    parents: input name -> artifact id. rows: the main row count. cost: wall_s, cpu_s, peak_memory_bytes.
    folder: of the data files, `data` unless a writer took over from one who may still be writing there.
    """

    kind: str
    artifact_id: str
    as_of: str
    parents: dict[str, str]
    settings: dict[str, Any]
    seed: int
    code_version: str
    rows: int
    content_hash: str
    files: tuple[FileEntry, ...]
    metrics: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    schema_version: int = MANIFEST_VERSION
    folder: str = DATA

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    def to_json(self) -> bytes:
        values = asdict(self)
        if self.folder == DATA:
            del values["folder"]
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @property
    def data_prefix(self) -> str:
        """Where the data files are, relative to the store."""
        return f"{prefix_of(self.kind, self.artifact_id)}/{self.folder}"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Manifest":
        """Raises CorruptArtifact for bytes that are no manifest or one of an unknown version."""
        try:
            values = json.loads(data)
            version = values["schema_version"]
            if version != MANIFEST_VERSION:
                raise CorruptArtifact(f"{where}: manifest version {version}, this code reads {MANIFEST_VERSION}")
            files = tuple(FileEntry(**entry) for entry in values.pop("files"))
            for name in (*(entry.path for entry in files), values.get("folder", DATA)):
                check_relative(name, where)
            return cls(files=files, **values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptArtifact(f"{where}: not a manifest: {error}", "Delete the artifact and run again.") from error


@dataclass(frozen=True)
class OpenArtifact:
    """A verified artifact: `path` is its data folder on this machine."""

    path: Path
    manifest: Manifest


def artifact_id(
    kind: str, parents: Mapping[str, str], settings: Mapping[str, Any], as_of: datetime, code_version: str
) -> str:
    """`20260101T000000Z-` and 16 hex digits over everything that decides the content."""
    values = [kind, dict(parents), dict(settings), format_time(as_of), code_version, MANIFEST_VERSION]
    digest = hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"{as_of:%Y%m%dT%H%M%SZ}-{digest[:16]}"


def is_artifact_id(name: str) -> bool:
    """Whether `artifact_id` could have made the name."""
    return _ID.fullmatch(name) is not None


def is_name(name: str) -> bool:
    """Whether the name is safe as one path part."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, what: str) -> str:
    """The name itself; raises UsageError unless it is safe as one path part."""
    if not is_name(name):
        raise UsageError(f"{name!r}: not a valid {what}", "Use letters, digits, '.', '_' and '-'.")
    return name


def prefix_of(kind: str, artifact: str) -> str:
    return f"{check_name(kind, 'artifact kind')}/{check_name(artifact, 'artifact id')}"


def find_manifest(store: ObjectStore, kind: str, artifact: str) -> Manifest | None:
    """The manifest of a finished artifact, or None."""
    key = f"{prefix_of(kind, artifact)}/{MANIFEST}"
    try:
        data = store.get(key).data
    except NotFound:
        return None
    return Manifest.from_json(data, f"{store.uri}/{key}")


def open_artifact(store: ObjectStore, kind: str, artifact: str) -> OpenArtifact:
    """Opens a finished artifact for reading, every file verified.

    Raises NotFound when it is not finished and CorruptArtifact naming the first file that differs.
    """
    manifest = find_manifest(store, kind, artifact)
    if manifest is None:
        raise NotFound(f"{store.uri}/{prefix_of(kind, artifact)}: not finished", "Run its stage.")
    folder = _local_data(store, manifest)
    verify_files(folder, manifest)
    return OpenArtifact(folder, manifest)


def open_sound_files(store: ObjectStore, kind: str, artifact: str, under: str) -> tuple[OpenArtifact, frozenset[str]]:
    """Opens those files of a finished artifact whose path starts with `under`, and names those that are not sound.

    For readers that can do with less: the others are missing, altered, or could not be fetched. Raises NotFound.
    """
    manifest = find_manifest(store, kind, artifact)
    if manifest is None:
        raise NotFound(f"{store.uri}/{prefix_of(kind, artifact)}: not finished", "Run its stage.")
    chosen = [entry for entry in manifest.files if entry.path.startswith(under)]
    prefix = manifest.data_prefix
    here = store.local_folder(prefix)
    folder = here or cached(store, prefix)

    def sound(entry: FileEntry) -> bool:
        target = folder / entry.path
        try:
            if here is None and entry_of(target, entry.path) != entry:
                target.unlink(missing_ok=True)
                store.download(f"{prefix}/{entry.path}", target)
            return entry_of(target, entry.path) == entry
        except (PymkError, OSError):
            return False

    damaged = frozenset(entry.path for entry in chosen if not sound(entry))
    if here is None:
        _keep_manifest(store, manifest)
    return OpenArtifact(folder, manifest), damaged


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises CorruptArtifact naming a file that is missing, truncated or altered."""
    verify_entries(folder, manifest.files, f"Delete {manifest.kind}/{manifest.artifact_id} and run again.")


class Fence(Protocol):
    """The lease of who makes an artifact. check raises Fenced where it has passed to another."""

    @property
    def token(self) -> int: ...

    def check(self) -> None: ...


def write_artifact(store: ObjectStore, folder: Path, manifest: Manifest, fence: Fence | None = None) -> Manifest:
    """Seals `folder` (which holds `data/`) as an artifact; the manifest's file list is made here.

    When another writer finished the same artifact first, theirs stands and is returned. Raises Fenced, with nothing
    written, where the lease of this writer has passed to another and what that one finished, if it did, is not equal.
    """
    entries = entries_below(folder / DATA)
    sealed = replace(manifest, files=entries, folder=_data_folder(store, fence))
    if sealed.folder != DATA:
        (folder / DATA).rename(folder / sealed.folder)
    (folder / MANIFEST).write_bytes(sealed.to_json())
    stands = _commit(store, folder, sealed, fence)
    if sealed.folder != DATA or stands.folder != DATA:
        _keep_only(store, stands)
    return stands


def _commit(store: ObjectStore, folder: Path, sealed: Manifest, fence: Fence | None) -> Manifest:
    """The manifest that stands in the end: this one, or that of who was first. Raises Fenced."""
    prefix = prefix_of(sealed.kind, sealed.artifact_id)
    try:
        if store.commit_folder(folder, prefix, MANIFEST, fence.check if fence else lambda: None):
            return sealed
        found = find_manifest(store, sealed.kind, sealed.artifact_id) or sealed
        if fence and found.content_hash != sealed.content_hash:
            fence.check()
        return found
    except Fenced:
        standing = find_manifest(store, sealed.kind, sealed.artifact_id)
        if standing is None or standing.content_hash != sealed.content_hash:
            raise
        return standing


def _data_folder(store: ObjectStore, fence: Fence | None) -> str:
    """Files of a remote store come one by one, so that of several writers each has a folder of its own."""
    if fence is None or fence.token == 1 or store.local_folder(DATA) is not None:
        return DATA
    return f"{DATA}-{fence.token}"


def _keep_only(store: ObjectStore, stands: Manifest) -> None:
    """Removes what other writers of the artifact left beside it."""
    prefix = f"{prefix_of(stands.kind, stands.artifact_id)}/"
    for name in store.folders(prefix):
        if name != stands.folder:
            store.delete_folder(f"{prefix}{name}/")


def _local_data(store: ObjectStore, manifest: Manifest) -> Path:
    """The data folder on this machine."""
    folder = local_files(store, manifest.data_prefix, manifest.files)
    if store.local_folder(manifest.data_prefix) is None:
        _keep_manifest(store, manifest)
    return folder


def drop_cached(store: ObjectStore, kind: str, artifact: str) -> None:
    """Removes the local copy of a remote artifact."""
    if store.local_folder(kind) is None:
        shutil.rmtree(cached(store, prefix_of(kind, artifact)), ignore_errors=True)


def local_copy(store_uri: str) -> FolderStore | None:
    """What this machine keeps of a remote store, as a store: of use while that is away. None for a store that is here.

    It holds the artifacts that were opened on this machine, whole or in part, as `open_artifact` tells.
    """
    return FolderStore(copies_of(store_uri)) if urlsplit(store_uri).scheme == "s3" else None


def _keep_manifest(store: ObjectStore, manifest: Manifest) -> None:
    key = f"{prefix_of(manifest.kind, manifest.artifact_id)}/{MANIFEST}"
    FolderStore(copies_of(store.uri)).put(key, manifest.to_json())
