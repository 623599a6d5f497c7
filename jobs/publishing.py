"""Moving CURRENT to a release: the gates, who passes them over, and the record of that."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

from infra.artifacts import Manifest
from infra.errors import Conflict, CorruptArtifact, GateRefused, NotFound, UsageError
from infra.release_files import Override, Pointer
from infra.release_records import recorded
from infra.releases import Release, ReleaseStore, Seen, manifests_of
from infra.settings import Settings
from infra.times import format_time
from jobs.gates import INTEGRITY, Finding, Measured, check

Tell = Callable[[str], None]

ATTEMPTS = 5
"""A rival publishes once a night: who loses more often is not up against one."""


def publish_release(
    releases: ReleaseStore,
    release: Release,
    settings: Settings,
    tell: Tell,
    *,
    force: bool = False,
    reason: str | None = None,
) -> dict[str, Any]:
    """Checks the gates and moves CURRENT: {"release_id", "published", "said", "warnings", "overridden"}.

    CURRENT stays where a newer release is served or this one was withdrawn by a rollback, unless forced. Raises
    GateRefused naming every gate that refused. force passes the quality gates, never those of integrity; what it passed
    is recorded beside the release, with the reason. Where another release is published meanwhile, the gates are checked
    again; raises Conflict when that happens each of ATTEMPTS times, and for one that is not of CURRENT.
    """
    refuse_reason_alone(force, reason)
    for _ in range(ATTEMPTS - 1):
        seen = releases.look(repairing=force)
        try:
            return _publish(releases, release, seen, settings, tell, force, reason)
        except Conflict:
            if releases.look(repairing=force).stored == seen.stored:
                raise  # nobody moved CURRENT, so that to try again changes nothing
            tell("another release was published meanwhile: the gates are checked against that one")
    return _publish(releases, release, releases.look(repairing=force), settings, tell, force, reason)


def refuse_reason_alone(force: bool, reason: str | None) -> None:
    """Raises UsageError for a reason that nothing would keep."""
    if reason is not None and not force:
        raise UsageError("--reason without --force: there is nothing to give a reason for", "Add --force, or drop it.")


def _publish(
    releases: ReleaseStore,
    release: Release,
    seen: Seen,
    settings: Settings,
    tell: Tell,
    force: bool,
    reason: str | None,
) -> dict[str, Any]:
    """Raises Conflict, with nothing done, where CURRENT is not `seen`, which the gates are checked against."""
    served = _served(releases, seen, release, force)
    findings = judge(releases, release, manifests_of(releases.store, release), served, settings, repairing=force)
    _refuse(release, [f for f in findings if f.refuses and (f.gate == INTEGRITY or not force)])
    overridden = [f for f in findings if f.refuses]
    with _recorded(releases, release, overridden, served, reason):
        published = releases.publish(release, force=force, over=seen)
    for finding in findings:
        tell(f"warning: {finding}")
    if reason is not None and not overridden:
        tell("warning: no gate had to be passed over, so that the reason is not kept")
    return {
        "release_id": release.release_id,
        "published": published,
        "said": "published" if published else _unpublished(seen.pointer, release.release_id),
        "warnings": [str(f) for f in findings],
        "overridden": [f.gate for f in overridden],
    }


def _served(releases: ReleaseStore, seen: Seen, release: Release, repairing: bool) -> Release | None:
    """The release to compare with. Raises CorruptArtifact or NotFound that tells how to replace it."""
    try:
        return releases.named(seen, repairing=repairing)
    except (CorruptArtifact, NotFound) as error:
        fix = f"`pymk release publish {release.release_id} --force` replaces the served release."
        raise type(error)(error.what, fix) from error


def judge(
    releases: ReleaseStore,
    release: Release,
    manifests: Mapping[str, Manifest],
    served: Release | None,
    settings: Settings,
    repairing: bool = False,
) -> list[Finding]:
    """The gates that the release does not meet, beside the served one where that is another and not newer.

    repairing: a served release whose artifacts are gone or damaged counts as none.
    """
    found = Measured.of(manifests)
    if found is None:
        return [Finding(INTEGRITY, f"{release.release_id} has no report: no gate can be checked", True)]
    if served is None or served.release_id == release.release_id or served.order > release.order:
        return check(found, None, settings)
    try:
        before = Measured.of(manifests_of(releases.store, served))
    except (NotFound, CorruptArtifact):
        if not repairing:
            raise
        before = None
    return check(found, before, settings)


def _refuse(release: Release, refused: Sequence[Finding]) -> None:
    if not refused:
        return
    release_id = release.release_id
    if any(f.gate == INTEGRITY for f in refused):
        way = "Nothing passes the gate of integrity: find the fault and run again."
    else:
        way = f"To serve it all the same: `pymk release publish {release_id} --force --reason TEXT`."
    raise GateRefused(
        f"{release_id} is not published: " + "; ".join(str(f) for f in refused),
        f"CURRENT is unchanged. `pymk report --release {release_id}` shows its metrics. {way}",
    )


def _recorded(
    releases: ReleaseStore, release: Release, gates: Sequence[Finding], served: Release | None, reason: str | None
) -> AbstractContextManager[None]:
    """A block that publishes over the gates, if there are any."""
    if not gates:
        return nullcontext()
    passed = tuple({"gate": f.gate, "detail": f.detail} for f in gates)
    replaced = served.release_id if served else None
    override = Override(format_time(datetime.now(UTC)), reason, passed, replaced)
    return recorded(releases.store, release.release_id, override)


def _unpublished(pointer: Pointer | None, release_id: str) -> str:
    """Why CURRENT stayed where it was."""
    if pointer and release_id in pointer.withdrawn:
        return (
            f"not published, as it was withdrawn by a rollback; `pymk release publish {release_id} --force` serves it"
        )
    return f"not published: a newer release is served; `pymk release publish {release_id} --force` replaces it"
