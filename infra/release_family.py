"""Which artifacts belong together: a release names one consistent family, and a delta extends that of its base."""

from collections.abc import Mapping

from infra.artifacts import Manifest
from infra.errors import CorruptArtifact, UsageError
from infra.release_files import ArtifactEntry, Release

_FIX = "Run the later stages again."


def entries_of(manifests: Mapping[str, Manifest]) -> dict[str, ArtifactEntry]:
    """What a release says of its artifacts."""
    return {
        kind: ArtifactEntry(m.artifact_id, m.data_prefix, m.rows, m.size_bytes, m.content_hash)
        for kind, m in sorted(manifests.items())
    }


def check_consistent(manifests: Mapping[str, Manifest]) -> None:
    """Raises CorruptArtifact unless every artifact has the same as-of and was made from the others of the family."""
    times = {m.as_of for m in manifests.values()}
    if len(times) > 1:
        raise CorruptArtifact(f"artifacts of different as-of in one release: {', '.join(sorted(times))}")
    _check_parents(manifests, {kind: m.artifact_id for kind, m in manifests.items()})


def check_extends(base: Release, manifests: Mapping[str, Manifest], as_of: str) -> None:
    """Raises CorruptArtifact unless each artifact is of that as-of and was made from the base's, or from such a one.

    Raises UsageError for no artifacts, and for one of a kind that the base has.
    """
    if not manifests:
        raise UsageError(f"{base.release_id}: nothing extends it", "Name the artifacts of the delta.")
    if both := set(manifests) & set(base.artifacts):
        kinds = ", ".join(sorted(both))
        raise UsageError(f"a delta on {base.release_id} has {kinds} of its own", "A delta adds kinds to its base's.")
    for kind, manifest in manifests.items():
        if manifest.as_of != as_of:
            raise CorruptArtifact(f"{kind} {manifest.artifact_id} is as of {manifest.as_of}, its delta as of {as_of}")
        if not set(manifest.parents) & {*base.artifacts, *manifests}:
            raise CorruptArtifact(f"{kind} {manifest.artifact_id} was made from nothing of {base.release_id}", _FIX)
    held = {kind: entry.artifact_id for kind, entry in base.artifacts.items()}
    _check_parents(manifests, held | {kind: m.artifact_id for kind, m in manifests.items()})


def check_release(release: Release, manifests: Mapping[str, Manifest]) -> None:
    """Raises CorruptArtifact unless the artifacts of the release, all of them, belong together."""
    own = delta_kinds(release, manifests)
    nightly = {kind: m for kind, m in manifests.items() if kind not in own}
    check_consistent(nightly)
    if release.base is not None:
        entries = {kind: release.artifacts[kind] for kind in nightly}
        base = Release(release.base, release.base_as_of or "", 0, (), entries)
        check_extends(base, {kind: manifests[kind] for kind in own}, release.as_of)


def delta_kinds(release: Release, manifests: Mapping[str, Manifest]) -> set[str]:
    """Kinds that a delta adds to its base's; none for a nightly."""
    return {kind for kind, m in manifests.items() if m.as_of != release.base_as_of} if release.base else set()


def _check_parents(manifests: Mapping[str, Manifest], held: Mapping[str, str]) -> None:
    """held: kind -> artifact id of the release."""
    for kind, manifest in manifests.items():
        for parent, parent_id in manifest.parents.items():
            if parent in held and held[parent] != parent_id:
                raise CorruptArtifact(
                    f"{kind} {manifest.artifact_id} was made from {parent} {parent_id}, "
                    f"the release holds {parent} {held[parent]}",
                    _FIX,
                )
