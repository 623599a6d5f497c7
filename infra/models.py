"""The registry of models: `{store}/models/{name}/{version}/`, whose manifest is written last.

A version never changes once its manifest is there; whoever reads it verifies every file. Its files are in a folder
named by their content, so that of two who push different files under one version neither spoils the other's.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from infra.artifacts import MANIFEST, check_name, is_name
from infra.errors import Conflict, CorruptArtifact, NotFound, PymkError, UsageError
from infra.model_golden import FILE as GOLDEN
from infra.model_reference import FILE as REFERENCE
from infra.model_spec import FILE as SPEC
from infra.model_spec import WEIGHTS, ModelSpec, check_model_name, parse_spec, read_spec
from infra.store import ObjectStore
from infra.store_folder import FolderStore
from infra.stored_files import FileEntry, check_relative, copies_of, entries_below, local_files, verify_entries
from infra.times import format_time

log = logging.getLogger(__name__)

FOLDER = "models"
CARD = "card.md"
MODEL_VERSION = 1
"""Version of the manifest's form."""
UNSAFE = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npz", ".py", ".so"}
"""Files that hold, or may hold, code that runs when they are opened."""
READERS = 8
"""Manifests of a remote store read at once."""

Check = Callable[[Path, ModelSpec], Mapping[str, Any]]
"""Refuses a model's folder that must not be served, with PymkError; what it found otherwise, as JSON values."""


@dataclass(frozen=True)
class ModelVersion:
    """A version that was checked and may be served. by: who pushed it. checks: what the check found, as JSON values.

    folder: of the files, below the version's own.
    """

    name: str
    version: str
    spec: ModelSpec
    files: tuple[FileEntry, ...]
    content_hash: str
    pushed_at: str
    by: str
    folder: str
    checks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Where it is, relative to the store."""
        return prefix_of(self.name, self.version)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files)

    def to_json(self) -> bytes:
        values = vars(self) | {"spec": self.spec.values(), "schema_version": MODEL_VERSION}
        return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "ModelVersion":
        """Raises CorruptArtifact for bytes that are no manifest of a model, or one of another form."""
        try:
            values = json.loads(data)
            if (form := values.pop("schema_version")) != MODEL_VERSION:
                raise CorruptArtifact(f"{where}: manifest version {form}, this code reads {MODEL_VERSION}")
            files = tuple(FileEntry(**entry) for entry in values.pop("files"))
            for entry in files:
                check_relative(entry.path, where)
            check_name(values["folder"], "folder")
            return cls(files=files, spec=parse_spec(values.pop("spec"), where), **values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            fix = "Push the model again under another version."
            raise CorruptArtifact(f"{where}: not a manifest of a model: {error}", fix) from error


class Registry:
    """The models of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def push(self, folder: Path, check: Check, now: datetime, by: str) -> ModelVersion:
        """Checks a model's folder and adds it; the same files again are the version that is there.

        Raises UsageError for a folder that is no model, whatever the check raises, and Conflict for a version that is
        there with other files.
        """
        spec = read_spec(folder)
        _refuse_strangers(folder)
        files = entries_below(folder)
        checks = dict(check(folder, spec))
        scratch = self.store.scratch()
        try:
            copy = Path(shutil.copytree(folder, scratch / "files"))
            if entries_below(copy) != files:
                raise Conflict(f"{folder}: changed while it was checked", "Push it again.")
            return self._add(copy, files, spec, checks, format_time(now), by)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def get(self, name: str, version: str) -> ModelVersion:
        """Raises NotFound, CorruptArtifact, and UsageError for what cannot be a name."""
        key = f"{prefix_of(name, version)}/{MANIFEST}"
        try:
            found = ModelVersion.from_json(self.store.get(key).data, f"{self.store.uri}/{key}")
        except NotFound:
            fix = "`pymk model list` shows the models and their versions."
            raise NotFound(f"{self.store.uri}: no model {name} of version {version}", fix) from None
        if (found.name, found.version) != (name, version):
            raise CorruptArtifact(f"{self.store.uri}/{key}: is {found.name} {found.version}", "Push it again.")
        return found

    def open(self, name: str, version: str) -> tuple[ModelVersion, Path]:
        """A version and its folder on this machine, every file verified."""
        model = self.get(name, version)
        return model, self.files_of(model)

    def files_of(self, model: ModelVersion) -> Path:
        """A version's folder on this machine, every file verified."""
        prefix = f"{model.prefix}/{model.folder}"
        folder = local_files(self.store, prefix, model.files)
        verify_entries(folder, model.files, f"Push {model.name} again under another version, and route that.")
        if self.store.local_folder(prefix) is None:
            FolderStore(copies_of(self.store.uri)).put(f"{model.prefix}/{MANIFEST}", model.to_json())
        return folder

    def read(self, model: ModelVersion, path: str) -> bytes | None:
        """One file of a version, verified; None where it has none of that name. Raises CorruptArtifact, StoreError."""
        entry = next((one for one in model.files if one.path == path), None)
        if entry is None:
            return None
        key = f"{model.prefix}/{model.folder}/{path}"
        data = self.store.get(key).data
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            fix = f"Push {model.name} again under another version, and route that."
            raise CorruptArtifact(f"{self.store.uri}/{key}: is not what its manifest says", fix)
        return data

    def names(self) -> list[str]:
        return [name for name in self.store.folders(f"{FOLDER}/") if is_name(name)]

    def list(self, name: str | None = None) -> list[ModelVersion]:
        """All versions, or those of one model, by name and then by when they were pushed; a damaged one is logged."""
        names = self.names() if name is None else [check_model_name(name)]
        with ThreadPoolExecutor(READERS) as pool:
            folders = pool.map(lambda one: [(one, v) for v in self.store.folders(f"{FOLDER}/{one}/")], names)
            found = pool.map(lambda pair: self._found(*pair), [pair for pairs in folders for pair in pairs])
            return sorted((one for one in found if one), key=lambda one: (one.name, one.pushed_at, one.version))

    def latest(self, name: str) -> ModelVersion | None:
        """The version that was pushed last; None where there is none."""
        return max(self.list(name), key=lambda one: (one.pushed_at, one.version), default=None)

    def pushed(self, name: str, known: Mapping[str, str]) -> dict[str, str]:
        """When each version of a model was pushed, by version; a damaged one is logged and left out.

        known: what was told before. As no version changes, those that are known are not read again, but listed alone:
        one that was removed and pushed again meanwhile keeps its time. The newest alone is read, so that none stands as
        such whose removal went no further than its manifest, or that is damaged.
        """
        versions = self.store.folders(f"{FOLDER}/{check_model_name(name)}/")
        with ThreadPoolExecutor(READERS) as pool:
            new = pool.map(lambda one: self._found(name, one), [one for one in versions if one not in known])
            found = {one.version: one.pushed_at for one in new if one}
        found |= {one: known[one] for one in versions if one in known}
        while (newest := newest_of(found)) and newest in known and not self._stands(name, newest):
            del found[newest]
        return found

    def remove(self, name: str, version: str) -> None:
        """Deletes a version; whether anybody routes to it is the caller's to know."""
        self.store.delete(f"{prefix_of(name, version)}/{MANIFEST}")  # first: what is half gone is not there
        self.store.delete_folder(f"{prefix_of(name, version)}/")

    def _stands(self, name: str, version: str) -> bool:
        """Whether it has a sound manifest. Raises StoreError where that cannot be told."""
        try:
            return bool(self.get(name, version))
        except (NotFound, CorruptArtifact) as error:
            log.warning("%s", error)
            return False

    def _found(self, name: str, version: str) -> ModelVersion | None:
        try:
            return self.get(name, version)
        except NotFound:  # still being pushed
            return None
        except PymkError as error:
            log.warning("%s", error)
            return None

    def _add(
        self,
        copy: Path,
        files: tuple[FileEntry, ...],
        spec: ModelSpec,
        checks: Mapping[str, Any],
        pushed_at: str,
        by: str,
    ) -> ModelVersion:
        content = hashlib.sha256(orjson.dumps([[entry.path, entry.sha256] for entry in files])).hexdigest()
        version, folder = spec.version or content[:12], f"files-{content[:12]}"
        made = ModelVersion(spec.name, version, spec, files, content, pushed_at, by, folder, checks)
        new = copy.with_name("new")
        new.mkdir()
        copy.rename(new / folder)
        (new / MANIFEST).write_bytes(made.to_json())
        if self.store.commit_folder(new, made.prefix, MANIFEST):
            return made
        stands = self.get(made.name, version)
        if stands.folder != folder:
            self.store.delete_folder(f"{made.prefix}/{folder}/")
        if stands.content_hash != content:
            what = f"{self.store.uri}: {made.name} {version} was pushed already, with other files"
            raise Conflict(what, "A version never changes: give this one another, in model.toml.")
        return stands


def newest_of(pushed: Mapping[str, str]) -> str | None:
    """The version that was pushed last, by when each was; None where there is none."""
    return max(pushed, key=lambda version: (pushed[version], version), default=None)


def prefix_of(name: str, version: str) -> str:
    """Raises UsageError for what cannot be the name of a model or a version."""
    return f"{FOLDER}/{check_model_name(name)}/{check_name(version, 'version of a model')}"


def _refuse_strangers(folder: Path) -> None:
    """Raises UsageError for a folder that lacks a part of a model, or holds what is none."""
    if not (card := folder / CARD).is_file() or not card.read_text(errors="replace").strip():
        raise UsageError(f"{card}: no such file, or empty", "Say what the model is for, and what it was learnt on.")
    if not any((folder / WEIGHTS).glob("*")):
        raise UsageError(f"{folder / WEIGHTS}: no weights", "Put the files that the model's kind reads there.")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise UsageError(f"{path}: is a link", "Put the file itself there.")
        if path.suffix.lower() in UNSAFE:
            raise UsageError(
                f"{path}: may hold code that runs when it is opened", "Save weights as ONNX, JSON, text or safetensors."
            )
        if name not in (SPEC, CARD, GOLDEN, REFERENCE, WEIGHTS) and not name.startswith(f"{WEIGHTS}/"):
            raise UsageError(f"{path}: is no part of a model", f"Put what its kind reads into {WEIGHTS}/.")
