"""`pymk release`: list, show, publish, roll back, verify and clean."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from infra.artifacts import OpenArtifact, open_artifact
from infra.errors import CorruptArtifact, PymkError
from infra.release_files import Override
from infra.release_records import overrides_of
from infra.releases import Release, ReleaseStore
from infra.store import open_store
from jobs.cli_options import Config, Json, Reason, Store, load_settings
from jobs.cli_output import console, output, progress, table

release_app = typer.Typer(help="List, show, publish, roll back, verify and clean releases.", no_args_is_help=True)

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
    found = [
        {"release_id": r.release_id, "as_of": r.as_of, "current": r.release_id == current} for r in releases.list()
    ]
    rows = [(f["release_id"], f["as_of"], "← CURRENT" if f["current"] else "") for f in found]
    output.show(
        {"current": current, "releases": found},
        json,
        lambda c: c.print(table("releases", ["release", "as of", ""], rows)),
    )


@release_app.command()
def show(store: Store, release_id: ReleaseId = None, json: Json = False) -> None:
    """A release and its artifacts, and the gates that somebody passed over to publish it."""
    opened = open_store(store)
    release = find_release(ReleaseStore(opened), release_id)
    overrides = overrides_of(opened, release)
    output.show(describe(release, overrides), json, lambda c: _print_release(c, release, overrides))


def describe(release: Release, overrides: Sequence[Override]) -> dict[str, Any]:
    """The release as `pymk release show --json` prints it."""
    keys = ("path", "rows", "bytes", "content_hash", "artifact_id")
    return {
        "release_id": release.release_id,
        "as_of": release.as_of,
        "parents": list(release.parents),
        "delta": release.delta,
        "overrides": [asdict(override) for override in overrides],
        "artifacts": {kind: {k: getattr(e, k) for k in keys} for kind, e in release.artifacts.items()},
    }


def _print_release(c: Console, release: Release, overrides: Sequence[Override]) -> None:
    rows = [(k, e.path, f"{e.rows:,}", f"{e.bytes:,}", e.content_hash[:16]) for k, e in release.artifacts.items()]
    c.print(table(release.release_id, ["kind", "path", "rows", "bytes", "content hash"], rows))
    for override in overrides:
        done = "published" if override.published else "perhaps published, as the command was cut off,"
        c.print(f"{done} {override.at} over its gates: {override.reason or 'no reason given'}", markup=False)
        for passed in override.gates:
            c.print(f"  {passed['gate']}: {passed['detail']}", markup=False)


@release_app.command()
def publish(
    release_id: Annotated[str, typer.Argument(help="Release id.")],
    store: Store,
    config: Config = None,
    force: Annotated[
        bool, typer.Option(help="Pass quality gates, and replace a newer release or a damaged CURRENT.")
    ] = False,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Point CURRENT at a release, once it verifies and meets its gates."""
    from jobs.publishing import publish_release, refuse_reason_alone

    refuse_reason_alone(force, reason)
    settings = load_settings(config)
    releases = ReleaseStore(open_store(store, writable=True))
    release = releases.get(release_id)
    releases.verify(release)
    made = publish_release(releases, release, settings, progress, force=force, reason=reason)
    output.show(made, json, lambda c: c.print(f"{release_id}: {made['said']}", markup=False))


@release_app.command()
def rollback(
    store: Store,
    to: Annotated[str | None, typer.Option(help="Release id; the one served before if not given.")] = None,
    json: Json = False,
) -> None:
    """Point CURRENT back at an earlier release."""
    release = ReleaseStore(open_store(store, writable=True)).rollback(to)
    output.show(
        {"release_id": release.release_id, "published": True},
        json,
        lambda c: c.print(f"rolled back to {release.release_id}"),
    )


@release_app.command()
def verify(store: Store, release_id: ReleaseId = None, json: Json = False) -> None:
    """Read every byte of a release and compare it with its manifests."""
    releases = ReleaseStore(open_store(store))
    release = find_release(releases, release_id)
    releases.verify(release)
    output.show(
        {"release_id": release.release_id, "verified": True},
        json,
        lambda c: c.print(f"{release.release_id}: verified"),
    )


@release_app.command()
def clean(
    store: Store,
    keep: Annotated[int | None, typer.Option(min=1, help="Releases to keep; default store.keep_releases.")] = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="Unused artifacts younger than this stay.")] = 24.0,
    json: Json = False,
) -> None:
    """Delete old releases and what only they use; CURRENT and the one before it always stay."""
    settings = load_settings(None)
    releases = ReleaseStore(open_store(store, writable=True))
    removed = releases.clean(keep or settings.store.keep_releases, grace_hours * 3600)
    said = f"removed {len(removed['releases'])} releases and {len(removed['artifacts'])} artifacts"
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
    """kind -> verified artifact, of all artifacts of a release or of some."""
    opened = open_store(store)
    release = find_release(ReleaseStore(opened), release_id)
    wanted = kinds or tuple(release.artifacts)
    return {kind: open_artifact(opened, kind, release.artifacts[kind].artifact_id) for kind in wanted}
