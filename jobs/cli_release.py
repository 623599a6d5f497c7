"""`pymk release`: list, show, publish, roll back, verify and clean."""

import atexit
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.artifacts import OpenArtifact, open_artifact
from infra.audit import recorded
from infra.errors import CorruptArtifact, PymkError
from infra.release_files import Override
from infra.release_readers import Reading, reading
from infra.release_records import Lineage, lineage_of, overrides_of
from infra.releases import Release, ReleaseStore
from infra.shadow_files import remove_old
from infra.store import open_store
from infra.times import parse_as_of
from jobs.cli_options import Config, Json, Reason, Store, load_settings
from jobs.cli_output import console, output, progress, table

release_app = typer.Typer(help="List, show, publish, roll back, verify and clean releases.", no_args_is_help=True)

Why = Annotated[str | None, typer.Option("--reason", help="Why, kept in the store's folder audit.")]
ReleaseId = Annotated[str | None, typer.Argument(help="Release id; CURRENT if not given.")]


@release_app.command("list")
def list_(store: Store, json: Json = False) -> None:
    """All releases, oldest first; the served one is marked, none where CURRENT is damaged."""
    releases = ReleaseStore(open_store(store))
    try:
        current = releases.current_id()
    except CorruptArtifact as error:  # these ids are what its repair asks for
        console.print(f"warning: {error}", markup=False)
        current = None
    listed = releases.list()
    found = [
        {"release_id": r.release_id, "as_of": r.as_of, "current": r.release_id == current, "base": r.base}
        for r in listed
    ]
    rows = [(r.release_id, r.as_of, _kind(r), "← CURRENT" if r.release_id == current else "") for r in listed]
    output.show(
        {"current": current, "releases": found},
        json,
        lambda c: c.print(table("releases", ["release", "as of", "kind", ""], rows)),
    )


def _kind(release: Release) -> str:
    return f"delta on {release.base}" if release.base else "nightly"


@release_app.command()
def show(store: Store, release_id: ReleaseId = None, json: Json = False) -> None:
    """A release and its artifacts, what made it, and the gates that somebody passed over to publish it."""
    opened = open_store(store)
    release = find_release(ReleaseStore(opened), release_id)
    overrides, lineage = overrides_of(opened, release), lineage_of(opened, release.release_id)
    output.show(describe(release, overrides, lineage), json, lambda c: _print_release(c, release, overrides, lineage))


def describe(release: Release, overrides: Sequence[Override], lineage: Lineage | None) -> dict[str, Any]:
    """The release as `pymk release show --json` prints it."""
    keys = ("path", "rows", "bytes", "content_hash", "artifact_id")
    return {
        "release_id": release.release_id,
        "as_of": release.as_of,
        "parents": list(release.parents),
        "delta": release.delta,
        "base": release.base,
        "lineage": asdict(lineage) if lineage else None,
        "overrides": [asdict(override) for override in overrides],
        "artifacts": {kind: {k: getattr(e, k) for k in keys} for kind, e in release.artifacts.items()},
    }


def _print_release(c: Console, release: Release, overrides: Sequence[Override], lineage: Lineage | None) -> None:
    rows = [(k, e.path, f"{e.rows:,}", f"{e.bytes:,}", e.content_hash[:16]) for k, e in release.artifacts.items()]
    c.print(table(release.release_id, ["kind", "path", "rows", "bytes", "content hash"], rows))
    c.print(f"{_kind(release)}, as of {release.as_of}", markup=False)
    if lineage:
        _print_lineage(c, lineage)
    for override in overrides:
        done = "published" if override.published else "perhaps published, as the command was cut off,"
        c.print(f"{done} {override.at} over its gates: {override.reason or 'no reason given'}", markup=False)
        for passed in override.gates:
            c.print(f"  {passed['gate']}: {passed['detail']}", markup=False)


def _print_lineage(c: Console, lineage: Lineage) -> None:
    files = lineage.lake.get("files", {})
    run = f"{lineage.dag_run}, {lineage.run_id}" if lineage.dag_run else lineage.run_id
    counted = "1 file" if len(files) == 1 else f"{len(files):,} files"
    read = f"{counted}, {sum(files.values()):,} bytes of {lineage.lake.get('uri')}" if files else "unknown"
    for name, value in {
        "run": f"{run} on {lineage.host} at {lineage.at}",
        "code": lineage.code_version + (f", commit {lineage.commit}" if lineage.commit else ""),
        "settings": lineage.settings_digest,
        "lake": read,
        "parents": ", ".join(lineage.parents) or "none",
    }.items():
        c.print(f"{name}: {value}", markup=False, soft_wrap=True)
    rows = [
        (kind, made.get("dag_run") or made.get("run_id", ""), made.get("host", ""), _parents(made))
        for kind, made in lineage.artifacts.items()
    ]
    c.print(table("made by", ["kind", "run", "host", "from"], rows))


def _parents(made: dict[str, Any]) -> str:
    return ", ".join(sorted(made.get("parents", {})))


@release_app.command()
def publish(
    release_id: Annotated[str, typer.Argument(help="Release id.")],
    store: Store,
    lake: Annotated[str | None, typer.Option(help="The lake that carries forward what later hours knew.")] = None,
    config: Config = None,
    force: Annotated[
        bool, typer.Option(help="Pass quality gates, and replace a newer release or a damaged CURRENT.")
    ] = False,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Point CURRENT at a release, once it verifies and meets its gates."""
    from jobs.hourly import carrier
    from jobs.publishing import publish_release, refuse_reason_alone

    refuse_reason_alone(force, reason)
    settings = load_settings(config)
    releases = ReleaseStore(open_store(store, writable=True))
    release = releases.get(release_id)
    releases.verify(release)
    carry = carrier(lake, releases.store, settings, progress) if lake else None
    made = publish_release(releases, release, settings, progress, force=force, reason=reason, carry=carry)
    output.show(made, json, lambda c: c.print(f"{release_id}: {made['said']}", markup=False))


@release_app.command()
def rollback(
    store: Store,
    to: Annotated[str | None, typer.Option(help="Release id; the one served before if not given.")] = None,
    night: Annotated[bool, typer.Option("--night", help="Without --to: the last one of another night.")] = False,
    asked_at: Annotated[
        str | None, typer.Option(help="RFC 3339 time; without --to nothing moves if somebody went back since.")
    ] = None,
    reason: Why = None,
    json: Json = False,
) -> None:
    """Point CURRENT back at an earlier release, once for each run of a scheduler (PYMK_RUN_ID)."""
    from jobs.rollback import roll_back

    asked = parse_as_of(asked_at) if asked_at else None
    releases = ReleaseStore(open_store(store, writable=True))
    made = roll_back(releases, to, reason, night=night, asked_at=asked)
    output.show(made, json, lambda c: c.print(made["said"], markup=False))


@release_app.command()
def verify(store: Store, release_id: ReleaseId = None, json: Json = False) -> None:
    """Read every byte of a release and compare it with its manifests."""
    releases = ReleaseStore(open_store(store))
    release = find_release(releases, release_id)
    with reading(releases.store, release.release_id):
        releases.verify(release)
    output.show(
        {"release_id": release.release_id, "verified": True},
        json,
        lambda c: c.print(f"{release.release_id}: verified"),
    )


@release_app.command()
def clean(
    store: Store,
    config: Config = None,
    keep: Annotated[int | None, typer.Option(min=1, help="Releases to keep; default store.keep_releases.")] = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Unused artifacts younger than this stay.")] = 24.0,
    reason: Why = None,
    json: Json = False,
) -> None:
    """Delete old releases and what only they use; CURRENT and the one before it always stay."""
    from jobs.nightly_model import clean_nightly

    settings = load_settings(config)
    opened = open_store(store, writable=True)
    with recorded(opened, "clean", reason) as deed:
        removed = ReleaseStore(opened).clean(keep or settings.store.keep_releases, grace_hours * 3600)
        removed["models"] = clean_nightly(opened)
        removed["shadows"] = remove_old(opened, datetime.now(UTC) - timedelta(days=settings.shadows.keep_days))
        deed.update(removed)
    counts = ", ".join(f"{len(names)} {what}" for what, names in removed.items())
    said = f"removed {counts}"
    output.show(removed, json, lambda c: c.print(said))


def find_release(releases: ReleaseStore, release_id: str | None) -> Release:
    """The named release, or the served one."""
    release = releases.get(release_id) if release_id else releases.current()
    if release is None:
        raise PymkError(f"{releases.store.uri}: nothing was published yet", "Run `pymk run` first.")
    return release


def open_release_folders(store: str, release_id: str | None, kinds: Sequence[str] = ()) -> dict[str, Path]:
    """kind -> verified data folder, of all artifacts of a release or of some."""
    return {kind: opened.path for kind, opened in open_release(store, release_id, kinds).items()}


def open_release(store: str, release_id: str | None, kinds: Sequence[str] = ()) -> dict[str, OpenArtifact]:
    """kind -> verified artifact, of all artifacts of a release or of some, for as long as this process runs."""
    opened = open_store(store)
    release = find_release(ReleaseStore(opened), release_id)
    atexit.register(Reading(opened, release.release_id).end)
    wanted = kinds or tuple(release.artifacts)
    return {kind: open_artifact(opened, kind, release.artifacts[kind].artifact_id) for kind in wanted}
