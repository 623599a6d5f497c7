"""Moving CURRENT to a release: the gates, who passes them over, and the record of that.

A nightly knows less of the last hours than the delta that it replaces, and a delta that ends late knows less of the
nightly that replaced its base: CURRENT then moves to a delta on the newer nightly, as of the later of the two times.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.artifacts import Manifest
from infra.audit import recorded as keep_deed
from infra.audit import tries
from infra.errors import Conflict, CorruptArtifact, GateRefused, NotFound, UsageError
from infra.leases import Lease, Maker, take
from infra.release_family import delta_kinds
from infra.release_files import Override, Pointer
from infra.release_records import recorded
from infra.releases import Release, ReleaseStore, Seen, manifests_of
from infra.settings import Settings
from infra.times import format_time
from jobs.gates import INTEGRITY, Finding, Measured, check, faults
from jobs.lineage import this_run

Tell = Callable[[str], None]
Carry = Callable[[Release, datetime], Release]
"""Makes the delta on a nightly at an as-of."""

LEASE = "publish"
FORCED = "forced-publish"
"""Kept in the folder audit of the store."""

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
    carry: Carry | None = None,
    maker: Maker | None = None,
) -> dict[str, Any]:
    """Checks the gates and moves CURRENT: {"release_id", "published", "said", "warnings", "overridden", "served"}.

    CURRENT stays where a newer release is served or this one was withdrawn by a rollback, unless forced. Raises
    GateRefused naming every gate that refused. force passes the quality gates, never those of integrity; what it passed
    is recorded beside the release, with the reason. A run of a scheduler forces once, and over what was served when it
    first tried: its task may be tried again, or cleared later. Where another release is published meanwhile, the gates
    are checked again; raises Conflict when that happens each of ATTEMPTS times, and for one that is not of CURRENT. One
    publishes at a time: another waits, by the lease of infra.leases, and who lost it meanwhile is refused with Fenced.

    carry: makes the delta that CURRENT moves to where the release, or the one it replaces, would lose what the other
    knows; "served" is its id then. Without carry CURRENT stays, unless forced: then what the delta knew is lost.
    """
    refuse_reason_alone(force, reason)
    with (
        _one_at_a_time(releases, settings, tell, maker or this_run()) as lease,
        _forcing(releases, release, force, reason, tell) as force,
    ):
        asked = _Asked(releases, release, settings, tell, force, reason, carry, lease)
        for _ in range(ATTEMPTS - 1):
            seen = releases.look(repairing=force)
            try:
                return asked.publish(seen)
            except Conflict:
                if releases.look(repairing=force).stored == seen.stored:
                    raise  # nobody moved CURRENT, so that to try again changes nothing
                tell("another release was published meanwhile: the gates are checked against that one")
        return asked.publish(releases.look(repairing=force))


def _one_at_a_time(
    releases: ReleaseStore, settings: Settings, tell: Tell, maker: Maker
) -> AbstractContextManager[Lease | None]:
    """A block in which no other run publishes."""
    if not releases.store.conditional_puts:
        return nullcontext()  # CURRENT will not be moved there
    return take(releases.store, LEASE, maker, ttl_s=settings.store.lease_s, tell=tell) or nullcontext()


@contextmanager
def _forcing(releases: ReleaseStore, release: Release, force: bool, reason: str | None, tell: Tell) -> Iterator[bool]:
    """Whether to force, and the record of it: a run of a scheduler forces once, over what was served at first."""
    if not force:
        yield False
        return
    pointer = releases.look(repairing=True).pointer
    intended = {"release_id": release.release_id, "over": pointer and pointer.release_id}
    before = tries(releases.store, FORCED)  # of another id too: a night that was cleared is made anew
    if before and (before[0].result.get("over") != intended["over"] or any(one.done for one in before)):
        forced = before[0].result.get("release_id")
        tell(f"warning: this run forced {forced} before, and forces nothing again: trigger a new one for that")
        yield False
        return
    with keep_deed(releases.store, FORCED, reason, intended):
        yield True


def refuse_reason_alone(force: bool, reason: str | None) -> None:
    """Raises UsageError for a reason that nothing would keep."""
    if reason is not None and not force:
        raise UsageError("--reason without --force: there is nothing to give a reason for", "Add --force, or drop it.")


@dataclass(frozen=True)
class _Asked:
    """What publish_release was asked for. lease: None where nothing may be published."""

    releases: ReleaseStore
    release: Release
    settings: Settings
    tell: Tell
    force: bool
    reason: str | None
    carry: Carry | None
    lease: Lease | None

    def publish(self, seen: Seen) -> dict[str, Any]:
        """Raises Conflict, with nothing done, where CURRENT is not `seen`, which the gates are checked against."""
        releases, release, force = self.releases, self.release, self.force
        served = _served(releases, seen, release, force)
        newer = served is None or seen.pointer is None or releases.is_newer(release, served, seen.pointer)
        manifests = manifests_of(releases.store, release)
        beside = served if newer or (served and served.nightly == release.nightly) else None
        findings = judge(releases, release, manifests, beside, self.settings, repairing=force)
        _refuse(release, [f for f in findings if f.refuses and (f.gate == INTEGRITY or not force)])
        overridden = [f for f in findings if f.refuses]
        kept = self._kept(seen.pointer, served, newer)
        target = release if kept else self._target(served, newer)
        if self.lease:
            self.lease.check()
        published = bool(kept and kept[0])
        if not kept:
            with _recorded(releases, release, overridden, served, self.reason):
                published = releases.publish(target, force=force, over=seen)
        for finding in findings:
            self.tell(f"warning: {finding}")
        if self.reason is not None and not overridden:
            self.tell("warning: no gate had to be passed over, so that the reason is not kept")
        return {
            "release_id": release.release_id,
            "published": published,
            "said": kept[1] if kept else _said(release, target, published, seen.pointer),
            "warnings": [str(f) for f in findings],
            "overridden": [f.gate for f in overridden],
            "served": target.release_id if published and not kept else seen.pointer and seen.pointer.release_id,
        }

    def _kept(self, pointer: Pointer | None, served: Release | None, newer: bool) -> tuple[bool, str] | None:
        """Whether the release counts as published though CURRENT stays, and why it does; None where it is to move."""
        release = self.release
        if self.force or served is None or pointer is None or pointer.release_id == release.release_id:
            return None
        if pointer.has_withdrawn(release):
            return False, _unpublished(pointer, release)
        if served.base == release.release_id:
            return True, f"published, and extended since by {served.release_id}"
        if self.carry is None and newer and loses(release, served):
            return False, (
                f"not published: what {served.release_id}, which is served, knows until {served.as_of} would be lost; "
                f"`pymk stage publish` with the lake carries it forward, "
                f"`pymk release publish {release.release_id} --force` drops it"
            )
        return None

    def _target(self, served: Release | None, newer: bool) -> Release:
        """What CURRENT is to name: the release, or a delta that knows what it and the served one know."""
        release = self.release
        if self.carry is None or served is None or (self.force and not newer):
            return release
        ahead, behind = (release, served) if newer else (served, release)
        if not loses(ahead, behind):
            return release
        self.tell(f"what {behind.release_id} knows until {behind.as_of} is carried forward onto {ahead.nightly}")
        target = self.carry(self.releases.get(ahead.nightly), behind.time)
        _refuse(target, _own_faults(target, manifests_of(self.releases.store, target)))
        return target


def loses(ahead: Release, behind: Release) -> bool:
    """Whether the newer of the two, on another nightly, does not know the last of what the older one knows."""
    return ahead.nightly != behind.nightly and behind.time > ahead.time


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
    """The gates that the release does not meet, beside the served one where that is another. served: None for a newer.

    The gates of quality are of a night: a delta on the night that is served, which passed them or was forced, is asked
    for faults alone. repairing: a served release whose artifacts are gone or damaged counts as none.
    """
    found = Measured.of(manifests)
    wrong = integrity_faults(release, manifests)
    if found is None or wrong or (served and release.base and served.nightly == release.nightly):
        return wrong
    if served is None or served.release_id == release.release_id:
        return check(found, None, settings)
    try:
        before = Measured.of(manifests_of(releases.store, served))
    except (NotFound, CorruptArtifact):
        if not repairing:
            raise
        before = None
    return check(found, before, settings)


def integrity_faults(release: Release, manifests: Mapping[str, Manifest]) -> list[Finding]:
    """What no force passes, nor a rollback."""
    found = Measured.of(manifests)
    if found is None:
        return [Finding(INTEGRITY, f"{release.release_id} has no report: no gate can be checked", True)]
    return [*_own_faults(release, manifests), *faults("rankings", found.report)]


def _own_faults(release: Release, manifests: Mapping[str, Manifest]) -> list[Finding]:
    """What is wrong with what a delta adds: one of its artifacts at least counts its faults, as the report does."""
    counted = {kind: manifests[kind].metrics for kind in sorted(delta_kinds(release, manifests))}
    told = {kind: metrics for kind, metrics in counted.items() if "faults" in metrics} or counted
    return [found for kind, metrics in told.items() for found in faults(kind, metrics)]


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


def _said(release: Release, target: Release, published: bool, pointer: Pointer | None) -> str:
    if not published:
        return _unpublished(pointer, target)
    return "published" if target == release else f"published, carried forward as {target.release_id}"


def _unpublished(pointer: Pointer | None, release: Release) -> str:
    """Why CURRENT stayed where it was."""
    forced = f"`pymk release publish {release.release_id} --force`"
    if pointer and pointer.has_withdrawn(release):
        what = "it" if release.release_id in pointer.withdrawn else f"{release.nightly}, which it extends,"
        return f"not published, as {what} was withdrawn by a rollback; {forced} serves it"
    return f"not published: a newer release is served; {forced} replaces it"
