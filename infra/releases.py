"""Releases: immutable manifests that name one consistent family of artifacts, and the pointer CURRENT.

`{store}/releases/{release_id}.json` never changes once written; infra.release_records keeps what happens to a release.
`{store}/CURRENT` names the release that is served and moves by compare-and-swap. A release is a nightly or a delta,
which extends one nightly to a later as-of. They are ordered by the as-of of the nightly, then by delta; an older one
never replaces a newer one unless forced. Of two nightlies of one as-of the one that was served later is the newer.
"""

import builtins
import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime

import orjson

from infra.artifacts import (
    Manifest,
    check_name,
    find_manifest,
    is_name,
    open_artifact,
)
from infra.errors import Conflict, CorruptArtifact, NotFound, PymkError, StoreError, UsageError
from infra.release_family import check_consistent, check_extends, check_release, entries_of
from infra.release_files import HISTORY, Pointer
from infra.release_files import Release as Release
from infra.release_readers import open_releases
from infra.release_records import FOLDER, mark_withdrawn, records_of, withdrawn_releases
from infra.retention import kept_releases, named_artifacts, remove_artifacts, store_time
from infra.store import ObjectStore, StoredObject
from infra.times import format_time
from infra.variants import forget_variants, named_lists

log = logging.getLogger(__name__)

CURRENT = "CURRENT"
OF_A_NIGHT = 3
"""Releases of one night that CURRENT remembers: there are many deltas on one, and the nights before it must stay."""


@dataclass(frozen=True)
class Seen:
    """CURRENT as it was read. stored: its bytes, None where there is none. pointer: None too where it is damaged."""

    stored: StoredObject | None
    pointer: Pointer | None


class ReleaseStore:
    """The releases of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def make(self, manifests: Mapping[str, Manifest]) -> Release:
        """Writes a nightly release of one artifact a kind. The same artifacts give the same release.

        Raises CorruptArtifact when the artifacts do not belong together.
        """
        check_consistent(manifests)
        as_of = next(iter(manifests.values())).as_of
        return self._write(Release("", as_of, 0, (), entries_of(manifests)))

    def make_delta(self, base: Release, manifests: Mapping[str, Manifest], as_of: datetime) -> Release:
        """Writes a delta release: the artifacts of a nightly, and beside them those that extend it to a later as-of.

        manifests: what the delta adds, of kinds that the base does not have; `base`'s own stay as they are. The same
        base, artifacts and as-of give the same release. Raises UsageError for a base that is a delta or not older, and
        CorruptArtifact for artifacts that were not made of the base's.
        """
        if base.base is not None:
            raise UsageError(f"{base.release_id}: is a delta itself", f"Extend its base, {base.base}.")
        if as_of <= base.time:
            raise UsageError(f"{format_time(as_of)}: is not after {base.as_of}, which {base.release_id} knows already")
        check_extends(base, manifests, format_time(as_of))
        number = max(1, int((as_of - base.time).total_seconds()))
        entries = base.artifacts | entries_of(manifests)
        made = Release("", format_time(as_of), number, (), entries, base=base.release_id, base_as_of=base.as_of)
        return self._write(made)

    def _write(self, made: Release) -> Release:
        """The release under the id that its content gives it; one that is there already stands."""
        named = [(kind, entry.artifact_id) for kind, entry in sorted(made.artifacts.items())]
        digest = hashlib.sha256(orjson.dumps([*named, made.base] if made.base else named)).hexdigest()
        time = made.as_of.replace("-", "").replace(":", "").partition(".")[0].rstrip("Z")
        release_id = f"{time}Z-{digest[:12]}"
        served = self.look(repairing=True).pointer
        parents = (served.release_id,) if served and served.release_id != release_id else ()
        release = replace(made, release_id=release_id, parents=parents)
        try:
            self.store.put(_key(release_id), release.to_json(), if_absent=self.store.conditional_puts)
        except Conflict:
            return self.get(release_id)
        return release

    def get(self, release_id: str) -> Release:
        """Raises NotFound where there is none, CorruptArtifact where its file is damaged."""
        key = _key(check_name(release_id, "release id"))
        try:
            release = Release.from_json(self.store.get(key).data, f"{self.store.uri}/{key}")
        except NotFound:
            raise NotFound(f"{self.store.uri}: no release {release_id}", "`pymk release list` shows them.") from None
        if release.release_id != release_id:
            raise CorruptArtifact(f"{self.store.uri}/{key}: is release {release.release_id}", "Delete the file.")
        return release

    def keep_copy(self, release: Release) -> None:
        """Notes a release of another store, and that it is the one to serve, here where its artifacts are copied to."""
        self.store.put(_key(release.release_id), release.to_json())
        self.store.put(CURRENT, orjson.dumps(asdict(Pointer(release.release_id))))

    def list(self) -> list[Release]:
        """All releases that can be read, oldest first; a damaged one is logged."""
        found, damaged = self._read_all()
        for error in damaged:
            log.warning("%s", error)
        return found

    def pointer(self) -> Pointer | None:
        """The content of CURRENT, None before the first release. Raises CorruptArtifact where it is damaged."""
        return self.look().pointer

    def current_id(self) -> str | None:
        """What CURRENT names: one small read."""
        pointer = self.pointer()
        return pointer.release_id if pointer else None

    def current(self, *, repairing: bool = False) -> Release | None:
        """The served release, None before the first one.

        repairing: None too where CURRENT, or the file of the release that it names, is damaged or gone.
        """
        return self.named(self.look(repairing=repairing), repairing=repairing)

    def look(self, *, repairing: bool = False) -> Seen:
        """CURRENT, to compare with when it is moved. Raises CorruptArtifact where it is damaged, unless repairing."""
        try:
            stored = self.store.get(CURRENT)
        except NotFound:
            return Seen(None, None)
        try:
            return Seen(stored, Pointer.from_json(stored.data, f"{self.store.uri}/{CURRENT}"))
        except CorruptArtifact as error:
            if not repairing:
                raise
            log.warning("%s", error.what)
            return Seen(stored, None)

    def named(self, seen: Seen, *, repairing: bool = False) -> Release | None:
        """The release that CURRENT named, None before the first one.

        repairing: None too where the release's file is damaged or gone.
        """
        try:
            return self.get(seen.pointer.release_id) if seen.pointer else None
        except (CorruptArtifact, NotFound) as error:
            if not repairing:
                raise
            log.warning("%s", error)
            return None

    def publish(self, release: Release, *, force: bool = False, over: Seen | None = None) -> bool:
        """Points CURRENT at the release.

        False, and CURRENT stays, when a newer release is served or this one was withdrawn and `force` is not given.
        force also replaces a damaged CURRENT, whose history is lost with it. over: what the release was judged beside;
        raises Conflict when CURRENT is another by now.
        """
        self._refuse_without_conditions()
        while True:
            seen = over or self.look(repairing=force)
            pointer = seen.pointer
            if pointer and pointer.release_id == release.release_id:
                return True
            if pointer and not force and self._stays(pointer, release):
                return False
            if self._swap(seen.stored, self._moved(pointer, release) if pointer else self._anew(release)):
                return True
            if over:
                raise Conflict(f"{self.store.uri}/{CURRENT}: was moved meanwhile", "Publish again.")

    def _anew(self, release: Release) -> Pointer:
        """The first CURRENT, or one in place of a damaged one."""
        withdrawn = withdrawn_releases(self.store) - {release.release_id, release.nightly}
        return Pointer(release.release_id, withdrawn=tuple(sorted(withdrawn, reverse=True)[:HISTORY]))

    def _moved(self, pointer: Pointer, release: Release) -> Pointer:
        """Forward to the release; of each night only the last few are remembered."""
        moved = pointer.moved_to(release.release_id, release.nightly)
        found = {release_id: self._find(release_id) for release_id in moved.history}
        of_night: Counter[str] = Counter()
        kept = []
        for release_id, known in found.items():
            night = known.nightly if known else release_id
            of_night[night] += 1
            if of_night[night] <= OF_A_NIGHT:
                kept.append(release_id)
        return replace(moved, history=tuple(kept))

    def _stays(self, pointer: Pointer, release: Release) -> bool:
        """Whether only force may put the release in place of the served one."""
        if pointer.has_withdrawn(release):
            return True
        try:
            return not self.is_newer(release, self.get(pointer.release_id), pointer)
        except (CorruptArtifact, NotFound) as error:
            fix = f"`pymk release publish {release.release_id} --force` replaces the served release."
            raise type(error)(error.what, fix) from error

    def is_newer(self, release: Release, served: Release, pointer: Pointer) -> bool:
        """Whether the release may replace the served one, which `pointer` names, without force.

        Of nightlies of one as-of, that is one which was not served before the served one, nor a delta on one that was.
        """
        if release.nightly == served.nightly or release.night != served.night:
            return release.order >= served.order
        made_beside = self._find(served.nightly)
        before = (*pointer.history, *(made_beside.parents if made_beside else ()))
        return release.nightly not in {found.nightly for found in map(self._find, before) if found}

    def rollback(self, to: str | None = None, judged: Pointer | None = None) -> Release:
        """Points CURRENT back at `to`, or at the release it named before, once that verifies.

        judged: CURRENT as it was decided by, now if not given. Raises Conflict where it names a release of another
        night by the time that all is verified: that one is not what somebody found at fault.
        """
        self._refuse_without_conditions()
        judged = judged or self.pointer()
        release = self.get(to or self.before(judged))
        self.verify(release)
        while True:
            seen = self.look()
            pointer = seen.pointer
            if not pointer or not judged:
                return release
            if pointer.release_id == release.release_id:
                mark_withdrawn(self.store, pointer, release.nightly)  # whoever moved it may have died in between
                return release
            self._refuse_another_night(judged, pointer)
            if self._swap(seen.stored, self._back(pointer, release, judged)):
                return release

    def _refuse_another_night(self, judged: Pointer, pointer: Pointer) -> None:
        meant, served = self._find(judged.release_id), self._find(pointer.release_id)
        if meant and served and meant.nightly != served.nightly:
            raise Conflict(
                f"{self.store.uri}/{CURRENT}: was to be moved from {meant.release_id}, and names {served.release_id} "
                "of another night by now",
                "Look at that one: roll back again if it is at fault too.",
            )

    def _back(self, pointer: Pointer, release: Release, judged: Pointer) -> Pointer:
        """Back to the release; or forward again to a newer one, withdrawn by mistake: who is served is not at fault."""
        left = self._find(pointer.release_id)
        if left and pointer.has_withdrawn(release) and release.order > left.order:
            return self._moved(pointer, release)
        leaving = [judged.release_id]  # an hour on it may have come since
        leaving += [left.nightly] if left and left.nightly != release.nightly else []
        moved = pointer.back_to(release.release_id, leaving=leaving, staying=(release.nightly,))
        if release.release_id in pointer.history:
            return moved
        found = map(self._find, pointer.history)
        return replace(moved, history=tuple(r.release_id for r in found if r and r.order < release.order))

    def before(self, pointer: Pointer | None, *, leaving_night: bool = False) -> str:
        """The release that CURRENT named before, that is still there and was not withdrawn.

        leaving_night: of another night than the served one. Raises PymkError where there is none.
        """
        if not pointer:
            raise PymkError(f"{self.store.uri}: nothing was published yet", "Run `pymk run` first.")
        served = self._find(pointer.release_id)
        if leaving_night and served is None:
            fix = "Name a release with --to ID; `pymk release list` shows them."
            raise PymkError(f"{self.store.uri}: of what night {pointer.release_id} is cannot be read", fix)
        for release_id in pointer.history:
            found = self._find(release_id)
            if found is None and not self.store.exists(_key(release_id)):
                continue
            if found and (
                pointer.has_withdrawn(found) or (leaving_night and served and found.nightly == served.nightly)
            ):
                continue
            return release_id
        raise PymkError(f"{self.store.uri}: CURRENT has no earlier release", "Name one with --to ID.")

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
        check_release(release, manifests)

    def clean(self, keep: int, grace_s: float = 86_400.0) -> dict[str, Sequence[str]]:
        """Deletes old releases and artifacts that no kept release names.

        Kept is what infra.retention names: the newest `keep` nightlies and as many deltas, what CURRENT and a rollback
        need, what somebody has open, what is being made or made from, and every release and artifact younger than
        `grace_s` seconds (a run may be about to publish or use it). Folders that are no artifacts are never touched.
        Returns {"releases": [...], "artifacts": [...]}, what was deleted. Raises CorruptArtifact, with nothing deleted,
        where CURRENT or the file of a release is damaged: nobody knows what artifacts it names.
        """
        releases = self._sound()
        pointer = self.pointer()
        if pointer:
            self.get(pointer.release_id)
        now_s = store_time(self.store)
        in_use = open_releases(self.store, now_s) | self._changed_since(now_s - grace_s)
        kept_ids = kept_releases(releases, pointer, keep, in_use)
        named_lists(self.store, [r.release_id for r in releases])  # raises of a damaged one before anything is deleted
        doomed = [r for r in releases if r.release_id not in kept_ids and self._remove(r)]
        left = self._sound()  # with those that were made meanwhile
        kept = named_artifacts(left) | named_lists(self.store, [r.release_id for r in left])
        removed = list(remove_artifacts(self.store, kept, grace_s, now_s))
        self.store.clean_scratch(grace_s)
        return {"releases": [r.release_id for r in doomed], "artifacts": removed}

    def _changed_since(self, time_s: float) -> set[str]:
        """Ids of the releases of which something was written since."""
        keys = (info.key for info in self.store.list(f"{FOLDER}/") if info.modified_s > time_s)
        return {key.split("/")[1].removesuffix(".json") for key in keys}

    def _sound(self) -> builtins.list[Release]:
        """All releases, oldest first. Raises where the file of one is damaged."""
        releases, damaged = self._read_all()
        if damaged:
            raise damaged[0]
        return releases

    def _remove(self, release: Release) -> bool:
        """Deletes a release's file and records, unless CURRENT has been moved to it just now."""
        self.store.delete(_key(release.release_id))
        pointer = self.pointer()
        if pointer and release.release_id in (pointer.release_id, self._base_of(pointer.release_id)):
            self.store.put(_key(release.release_id), release.to_json())
            return False
        self.store.delete_folder(records_of(release.release_id))
        forget_variants(self.store, release.release_id)
        return True

    def _base_of(self, release_id: str) -> str | None:
        with suppress(NotFound):
            return self.get(release_id).base
        return None

    def _find(self, release_id: str) -> Release | None:
        """None for one that is gone or damaged."""
        with suppress(NotFound, CorruptArtifact):
            return self.get(release_id)
        return None

    def _read_all(self) -> tuple[builtins.list[Release], builtins.list[PymkError]]:
        """The releases, oldest first, and what is wrong with those whose file cannot be read."""
        found: list[Release] = []
        damaged: list[PymkError] = []
        for info in self.store.list(f"{FOLDER}/"):
            release_id = info.key.removeprefix(f"{FOLDER}/").removesuffix(".json")
            if not is_name(release_id) or info.key != _key(release_id):
                continue  # somebody else's file
            try:
                found.append(self.get(release_id))
            except NotFound:
                continue  # deleted since it was listed
            except (CorruptArtifact, StoreError) as error:
                damaged.append(error)
        return sorted(found, key=lambda r: (r.order, r.release_id)), damaged

    def _swap(self, stored: StoredObject | None, pointer: Pointer) -> bool:
        """Writes CURRENT if it still is what was found, and then the marks of withdrawn releases."""
        data = orjson.dumps(asdict(pointer), option=orjson.OPT_INDENT_2)
        try:
            if stored:
                self.store.put(CURRENT, data, if_match=stored.etag)
            else:
                self.store.put(CURRENT, data, if_absent=True)
        except Conflict:
            return False
        self._refuse_removed(stored, pointer, data)
        served = self._find(pointer.release_id)
        mark_withdrawn(self.store, pointer, served.nightly if served else pointer.release_id)
        return True

    def _refuse_removed(self, stored: StoredObject | None, pointer: Pointer, data: bytes) -> None:
        """Moves CURRENT back where the release it names was cleaned away in the same moment. Raises NotFound."""
        if self.store.exists(_key(pointer.release_id)):
            return
        written = self.store.get(CURRENT)
        if stored and written.data == data:
            with suppress(Conflict):
                self.store.put(CURRENT, stored.data, if_match=written.etag)
        raise NotFound(f"{self.store.uri}: release {pointer.release_id} was removed meanwhile", "Name another.")

    def _refuse_without_conditions(self) -> None:
        if not self.store.conditional_puts:
            raise StoreError(
                f"{self.store.uri}: the endpoint ignores conditional puts, so a publish could tear",
                "Use a store that honours If-Match and If-None-Match.",
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


def _key(release_id: str) -> str:
    return f"{FOLDER}/{release_id}.json"
