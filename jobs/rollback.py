"""Going back to an earlier release: by whom, why, and once for each run of a scheduler."""

from datetime import UTC, datetime
from typing import Any

from infra.audit import Deed, deeds, recorded, tries
from infra.errors import GateRefused, UsageError
from infra.release_files import Pointer
from infra.releases import Release, ReleaseStore, manifests_of
from infra.times import format_time
from jobs.publishing import integrity_faults


def roll_back(
    releases: ReleaseStore,
    to: str | None = None,
    reason: str | None = None,
    *,
    night: bool = False,
    asked_at: datetime | None = None,
) -> dict[str, Any]:
    """Points CURRENT back at `to`, or at the release it named before: {"release_id", "published", "said"}.

    night: where no release is named, the last one of another night. asked_at: when somebody asked for it, who had not
    seen a rollback since. A task that is tried again or cleared goes where its first try was to go, and nowhere where
    that was done: "published" says whether CURRENT names that release. Raises UsageError for a release that is newer
    than the served one and was not served before, and without a named one where another run went back since it was
    asked for; GateRefused for one with faults, and what ReleaseStore.rollback raises.
    """
    if to is not None and night:
        raise UsageError("--to and --night: both say where to go", "Give one of them.")
    pointer = releases.pointer()  # before the tries: who moved CURRENT has kept before what it was to do
    for one in tries(releases.store, "rollback"):
        if not one.result:
            continue
        to = str(one.result["release_id"])
        left = {one.result.get("from"), one.result.get("night")}
        if one.done or (pointer and left.intersection(pointer.withdrawn)):
            return _done_before(to, pointer)
        _refuse_another_night(releases, one, pointer)
    if to is None and asked_at is not None:
        _refuse_outrun(releases, asked_at)
    target = releases.get(to or releases.before(pointer, leaving_night=night))
    _refuse(releases, target, pointer)
    served = releases.current(repairing=True)
    intended = {
        "release_id": target.release_id,
        "from": pointer and pointer.release_id,
        "night": served and served.nightly,
    }
    with recorded(releases.store, "rollback", reason, intended) as result:
        releases.rollback(target.release_id, pointer)
        result["moved_at"] = format_time(datetime.now(UTC))
    return {"release_id": target.release_id, "published": True, "said": f"rolled back to {target.release_id}"}


def _refuse_another_night(releases: ReleaseStore, one: Deed, pointer: Pointer | None) -> None:
    """Raises UsageError where a try that did not end was of another night than the served one."""
    meant, served = one.result.get("night"), releases.current(repairing=True)
    if pointer and served and meant not in (None, served.nightly) and pointer.release_id != one.result["release_id"]:
        raise UsageError(
            f"this run was to leave {one.result.get('from')}, and {pointer.release_id} of another night is served now",
            "Look at that one: trigger a new run if it is at fault too.",
        )


def _refuse_outrun(releases: ReleaseStore, asked_at: datetime) -> None:
    """Raises UsageError where somebody went back since this was asked for, or the served night was made since: it would
    leave what whoever asked has not seen."""
    served = releases.current(repairing=True)
    for info in releases.store.list(f"releases/{served.nightly}.json") if served else ():
        if info.modified_s > asked_at.timestamp():
            raise UsageError(
                f"{served and served.nightly}, which is served, was made after this was asked for",
                "Look at that one: if it is at fault too, trigger anew, or name the release with --to ID.",
            )
    for one in deeds(releases.store, "rollback"):
        moved_at = str(one.result.get("moved_at", one.at))
        if one.done and datetime.fromisoformat(moved_at) >= asked_at:
            raise UsageError(
                f"{one.by} rolled back to {one.result.get('release_id')} at {moved_at}, after this was asked for",
                "Look at what is served now; to go further back, name the release with --to ID.",
            )


def _done_before(release_id: str, pointer: Pointer | None) -> dict[str, Any]:
    stays = pointer is not None and pointer.release_id == release_id
    since = "" if stays or pointer is None else f"; CURRENT names {pointer.release_id} since"
    said = f"this run has rolled back to {release_id} before{since}"
    return {"release_id": release_id, "published": stays, "said": said}


def _refuse(releases: ReleaseStore, target: Release, pointer: Pointer | None) -> None:
    name = target.release_id
    served = releases.current(repairing=True)
    known = pointer is None or name in (pointer.release_id, *pointer.history, *pointer.withdrawn)
    if served and pointer and not known and releases.is_newer(target, served, pointer):
        raise UsageError(
            f"{name}: is not older than {served.release_id}, which is served, nor does CURRENT remember it",
            f"`pymk release publish {name}` asks its gates; --force --reason TEXT passes those of quality.",
        )
    if wrong := integrity_faults(target, manifests_of(releases.store, target)):
        raise GateRefused(
            f"{name} is not served: " + "; ".join(str(finding) for finding in wrong),
            "CURRENT is unchanged. Nothing passes the gate of integrity: name another release with --to ID.",
        )
