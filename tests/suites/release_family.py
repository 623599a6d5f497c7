"""Tiny artifacts of one family and releases of them, for tests of what holds whatever artifacts contain."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from infra.artifacts import Manifest, artifact_id, write_artifact
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore
from infra.times import format_time

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def make_artifact(store: ObjectStore, kind: str, as_of: datetime, parents: dict[str, str], content: bytes) -> Manifest:
    folder = store.scratch()
    (folder / "data").mkdir()
    (folder / "data" / "part").write_bytes(content)
    made = Manifest(
        kind=kind,
        artifact_id=artifact_id(kind, parents, {}, as_of, "1"),
        as_of=format_time(as_of),
        parents=parents,
        settings={},
        seed=1,
        code_version="1",
        rows=1,
        content_hash=content.hex(),
        files=(),
    )
    return write_artifact(store, folder, made)


def make_family(store: ObjectStore, as_of: datetime) -> dict[str, Manifest]:
    graph = make_artifact(store, "graph", as_of, {"lake": "l"}, b"graph %d" % as_of.day)
    rankings = make_artifact(store, "rankings", as_of, {"graph": graph.artifact_id}, b"ranks %d" % as_of.day)
    return {"graph": graph, "rankings": rankings}


def make_release(store: ObjectStore, days: int = 0) -> Release:
    return ReleaseStore(store).make(make_family(store, DAY + timedelta(days=days)))


def make_warm(store: ObjectStore, day: int, start: Manifest | None) -> tuple[Manifest, Release]:
    """An encoder that was started from another, and the release of its night."""
    made, as_of = make_family(store, DAY + timedelta(days=day)), DAY + timedelta(days=day)
    parents = {"graph": made["graph"].artifact_id} | ({"warm_start": start.artifact_id} if start else {})
    encoder = make_artifact(store, "encoder", as_of, parents, b"encoder")
    return encoder, ReleaseStore(store).make(made | {"encoder": encoder})


def with_values(release: Release, **values: Any) -> bytes:
    return orjson.dumps(orjson.loads(release.to_json()) | values)
