"""What of a store may go: releases beyond the newest, artifacts that no release names, and what is left of both."""

import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from infra.artifacts import drop_cached, find_manifest, is_artifact_id, prefix_of
from infra.errors import CorruptArtifact
from infra.leases import FOLDER as LEASES
from infra.leases import read_lease
from infra.process_life import is_gone
from infra.release_files import Pointer, Release
from infra.store import ObjectStore

log = logging.getLogger(__name__)

ENCODER, WARM_START = "encoder", "warm_start"
"""A kind, and the name under which its manifest has the artifact that it was started from."""
SILENT = 5.0
"""Lifetimes of a lease without a sign of life after which nobody is waited for, even if nobody took it over."""


def store_time(store: ObjectStore) -> float:
    """Now by the clock that gives the store's objects their times, in seconds since 1970."""
    key = f"{LEASES}/.clock-{uuid.uuid4().hex}"
    store.put(key, b"")
    try:
        return max(info.modified_s for info in store.list(key))
    finally:
        store.delete(key)


def kept_releases(releases: Sequence[Release], pointer: Pointer | None, keep: int, opened: Collection[str]) -> set[str]:
    """Ids of the releases that stay.

    These are the newest `keep` nightlies, the newest `keep` deltas on them, the served release, the one that a rollback
    goes to, what somebody has open, and the bases of all these. releases: oldest first.
    """
    nightlies = [r.release_id for r in releases if r.base is None][-keep:]
    deltas = [r.release_id for r in releases if r.base in nightlies][-keep:]
    named = {pointer.release_id, *_back(releases, pointer)} if pointer else set()
    kept = {*nightlies, *deltas, *named, *opened}
    return kept | {r.nightly for r in releases if r.release_id in kept}


def _back(releases: Sequence[Release], pointer: Pointer) -> list[str]:
    """The release that a rollback goes to, if there is one, and the nightly that it goes to from deltas."""
    there = {r.release_id: r for r in releases}
    before = [r for r in pointer.history if r in there and not pointer.has_withdrawn(there[r])]
    served = there.get(pointer.release_id)
    nights = [r for r in before if served and there[r].nightly != served.nightly]
    return [*before[:1], *nights[:1]]


def named_artifacts(releases: Iterable[Release]) -> set[tuple[str, str]]:
    """(kind, artifact id) of what the releases name."""
    return {(kind, entry.artifact_id) for release in releases for kind, entry in release.artifacts.items()}


def ancestors(store: ObjectStore, artifacts: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Encoders that those among the artifacts were started from, one from another, and the graphs of all of them.

    A night that starts from one of them holds its friendships against all those graphs.
    """
    found: set[tuple[str, str]] = set()
    waiting = [artifact for kind, artifact in artifacts if kind == ENCODER]
    while waiting:
        try:
            manifest = find_manifest(store, ENCODER, waiting.pop())
        except CorruptArtifact as error:
            log.warning("%s; what it was started from is not kept for it", error)
            continue
        parents = manifest.parents if manifest else {}
        named = parents.get(WARM_START)
        if named and (ENCODER, named) not in found:
            waiting.append(named)
            found.add((ENCODER, named))
        if "graph" in parents:
            found.add(("graph", parents["graph"]))
    return found


def remove_artifacts(
    store: ObjectStore, kept: Collection[tuple[str, str]], grace_s: float, now_s: float
) -> Iterator[str]:
    """Deletes artifacts that nobody needs and yields their paths.

    They are neither kept nor ancestors of what is, nobody makes them or another from them, and neither they nor their
    lease changed for `grace_s` seconds: a run may be about to use what it found. now_s: by the store's clock.
    """
    changed, at_work = _leases(store, now_s)
    used = {(kind, artifact) for kind, _, artifact in (name.partition("/") for name in at_work)}
    kept = {*kept, *ancestors(store, {*kept, *used})}
    for kind in store.folders(""):
        for artifact in store.folders(f"{kind}/"):
            name = f"{kind}/{artifact}"
            if (kind, artifact) in kept or name in at_work or not is_artifact_id(artifact):
                continue
            prefix = f"{prefix_of(kind, artifact)}/"
            newest = max((i.modified_s for i in store.list(prefix)), default=0.0)
            if now_s - max(newest, changed.get(name, 0.0)) >= grace_s:
                store.delete_folder(prefix)
                drop_cached(store, kind, artifact)
                yield name
    _remove_leases(store, changed, at_work, grace_s, now_s)


def _leases(store: ObjectStore, now_s: float) -> tuple[dict[str, float], set[str]]:
    """When each lease changed, and the names that are at work: those made now, and those that they are made from."""
    changed: dict[str, float] = {}
    at_work: set[str] = set()
    for info in store.list(f"{LEASES}/"):
        name = info.key.removeprefix(f"{LEASES}/")
        changed[name] = info.modified_s
        with suppress(CorruptArtifact):
            file = read_lease(store, info.key)
            holder = file.holder if file else None
            if file and holder and now_s - info.modified_s < SILENT * file.ttl_s and not is_gone(holder.maker.process):
                at_work |= {name, *file.uses}
    return changed, at_work


def _remove_leases(
    store: ObjectStore, changed: Mapping[str, float], at_work: Collection[str], grace_s: float, now_s: float
) -> None:
    """Deletes the leases of artifacts that are not there."""
    for name, at in changed.items():
        kind, _, artifact = name.partition("/")
        if name in at_work or not is_artifact_id(artifact) or now_s - at < grace_s:
            continue
        if artifact not in store.folders(f"{kind}/"):
            store.delete(f"{LEASES}/{name}")
