"""Who made what: the run that this process is, and the record of what made a release."""

import hashlib
import os
import secrets
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson

from infra.artifacts import find_manifest
from infra.errors import CorruptArtifact
from infra.lake import open_lake
from infra.leases import Maker, Turn, lease_of
from infra.process_life import this_process
from infra.release_records import Lineage, keep_lineage
from infra.releases import Release
from infra.settings import Settings
from infra.store import ObjectStore
from infra.times import format_time
from jobs.stages import STAGES
from jobs.version import VERSION, commit

RUN_VARIABLE = "PYMK_RUN_ID"
"""Set by a scheduler to the name of its run."""


@cache
def _run_id(process: int) -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def this_run() -> Maker:
    """This process as a maker of artifacts and releases."""
    dag_run = os.environ.get(RUN_VARIABLE) or None
    return Maker(_run_id(os.getpid()), socket.gethostname(), this_process(), VERSION, dag_run)


def files_of(lake: str) -> dict[str, Any]:
    """The files that a lake's tables are in: {"uri", "files": {key: size in bytes}}."""
    tables = open_lake(lake).tables
    return {"uri": lake, "files": {info.key: info.size_bytes for files in tables.values() for info in files}}


def deciding(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings that decide what a release holds, by section. settings: as resolved for this machine."""
    names = sorted({"run", *(section for stage in STAGES for section in stage.sections)})
    return {name: settings.section(name) for name in names}


def settings_digest(settings: Settings) -> str:
    """sha256 over the settings that decide what a release holds. settings: as resolved for this machine."""
    return hashlib.sha256(orjson.dumps(deciding(settings), option=orjson.OPT_SORT_KEYS)).hexdigest()


def record_lineage(
    store: ObjectStore,
    release: Release,
    maker: Maker,
    settings: Settings,
    lake: Mapping[str, Any] | None = None,
) -> Lineage:
    """Keeps what made a release; the first record of a release stands and is returned.

    settings: as resolved for this machine. lake: see `files_of`; what the release's graph was built from if not given.
    """
    turns = {kind: _turn(store, f"{kind}/{entry.artifact_id}") for kind, entry in release.artifacts.items()}
    graph = turns.get("graph")
    lineage = Lineage(
        run_id=maker.run_id,
        dag_run=maker.dag_run,
        host=maker.host,
        code_version=maker.code_version,
        at=format_time(datetime.now(UTC)),
        settings_digest=settings_digest(settings),
        lake=dict(lake or (graph.notes.get("lake") if graph else None) or {}),
        artifacts={kind: _made(store, release, kind, turn) for kind, turn in turns.items()},
        base=release.base,
        parents=release.parents,
        commit=commit(),
        settings=deciding(settings),
    )
    return keep_lineage(store, release.release_id, lineage)


def _turn(store: ObjectStore, name: str) -> Turn | None:
    """Who made an artifact; None where nobody knows."""
    try:
        lease = lease_of(store, name)
    except CorruptArtifact:
        return None
    return lease.maker if lease else None


def _made(store: ObjectStore, release: Release, kind: str, turn: Turn | None) -> dict[str, Any]:
    """An artifact's parents, and who made it as far as is known."""
    artifact = release.artifacts[kind].artifact_id
    manifest = find_manifest(store, kind, artifact)
    told: dict[str, Any] = {"artifact_id": artifact, "parents": dict(manifest.parents) if manifest else {}}
    if manifest:
        told["code_version"] = manifest.code_version
    if turn:
        told |= {"run_id": turn.maker.run_id, "dag_run": turn.maker.dag_run, "host": turn.maker.host}
        told |= {"token": turn.token, "since": turn.since}
    return told
