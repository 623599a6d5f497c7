"""Deltas: releases that extend a nightly to a later as-of."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts import Manifest
from infra.errors import CorruptArtifact, UsageError
from infra.release_files import Release
from infra.releases import ReleaseStore, manifests_of
from infra.store import ObjectStore, open_store
from tests.suites.release_family import DAY, make_artifact, make_release, with_values


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def rows_of(store: ObjectStore, base: Release, as_of: datetime, **parents: str) -> dict[str, Manifest]:
    """What a delta adds: one artifact, made of the base's rankings."""
    made_of = {"rankings": base.artifacts["rankings"].artifact_id, "lake": "later"} | parents
    return {"delta": make_artifact(store, "delta", as_of, made_of, f"delta {as_of}".encode())}


def make_delta(store: ObjectStore, base: Release, hours: float) -> Release:
    as_of = base.time + timedelta(hours=hours)
    return ReleaseStore(store).make_delta(base, rows_of(store, base, as_of), as_of)


def test_a_delta_holds_the_artifacts_of_its_base_and_its_own(store: ObjectStore) -> None:
    base = make_release(store)
    delta = make_delta(store, base, 1)
    assert delta == make_delta(store, base, 1), "the same artifacts give the same delta"
    assert delta == ReleaseStore(store).get(delta.release_id)
    assert (delta.base, delta.base_as_of, delta.as_of) == (base.release_id, base.as_of, "2026-01-01T01:00:00Z")
    assert set(delta.artifacts) == {"graph", "rankings", "delta"}
    assert {kind: delta.artifacts[kind] for kind in base.artifacts} == base.artifacts
    ReleaseStore(store).verify(delta)
    assert set(manifests_of(store, delta)) == set(delta.artifacts)


def test_the_order_is_by_nightly_and_then_by_delta(store: ObjectStore) -> None:
    first, second = make_release(store), make_release(store, days=1)
    late = [make_delta(store, first, hours) for hours in (1, 2, 30, 30 + 1e-6)]
    soon = make_delta(store, second, 1)
    assert sorted([soon, *late, second, first], key=lambda r: r.order) == [first, *late, second, soon]
    assert ReleaseStore(store).list() == [first, *late, second, soon]
    assert late[2].time > soon.time, "though the order is another"


def test_current_follows_the_order(store: ObjectStore) -> None:
    releases = ReleaseStore(store)
    first, second = make_release(store), make_release(store, days=1)
    early, late = make_delta(store, first, 1), make_delta(store, first, 30)
    assert releases.publish(first)
    assert releases.publish(late)
    for older in (early, first):
        assert not releases.publish(older)
        assert releases.current() == late
    assert releases.publish(second)
    assert not releases.publish(late)
    assert releases.rollback() == late
    assert releases.rollback() == first
    assert not releases.publish(late), "it was withdrawn"
    assert releases.publish(make_delta(store, first, 31))


def test_what_does_not_extend_the_base_is_refused(store: ObjectStore) -> None:
    base, other = make_release(store), make_release(store, days=1)
    as_of = base.time + timedelta(hours=1)
    rows = rows_of(store, base, as_of)
    releases = ReleaseStore(store)

    def refused(said: str, error: type[Exception], manifests: Mapping[str, Manifest], **options: Any) -> None:
        values = {"base": base, "as_of": as_of} | options
        with pytest.raises(error, match=said):
            releases.make_delta(values["base"], manifests, values["as_of"])

    refused("was made from rankings", CorruptArtifact, rows_of(store, other, as_of))
    refused("was made from nothing of", CorruptArtifact, {"x": make_artifact(store, "x", as_of, {"lake": "l"}, b"x")})
    refused(r"is as of 2026-01-01T01:00:00Z, its delta as of", CorruptArtifact, rows, as_of=as_of + timedelta(hours=1))
    refused("nothing extends it", UsageError, {})
    refused("has rankings of its own", UsageError, rows | {"rankings": manifests_of(store, base)["rankings"]})
    refused("is not after", UsageError, rows, as_of=base.time)
    refused("is a delta itself", UsageError, rows, base=releases.make_delta(base, rows, as_of))


def test_a_delta_whose_parts_do_not_belong_together_does_not_verify(store: ObjectStore) -> None:
    base, other = make_release(store), make_release(store, days=1)
    delta, foreign = make_delta(store, base, 1), make_delta(store, other, 1)
    entries = with_entries(delta, delta=foreign)
    store.put(f"releases/{delta.release_id}.json", entries)
    with pytest.raises(CorruptArtifact, match="is as of"):
        ReleaseStore(store).verify(ReleaseStore(store).get(delta.release_id))
    store.put(f"releases/{delta.release_id}.json", with_entries(delta, graph=make_other_graph(store)))
    with pytest.raises(CorruptArtifact, match="was made from graph"):
        ReleaseStore(store).verify(ReleaseStore(store).get(delta.release_id))


def make_other_graph(store: ObjectStore) -> Release:
    graph = make_artifact(store, "graph", DAY, {"lake": "another"}, b"another")
    rankings = make_artifact(store, "rankings", DAY, {"graph": graph.artifact_id}, b"r")
    return ReleaseStore(store).make({"graph": graph, "rankings": rankings})


def with_entries(release: Release, **others: Release) -> bytes:
    """The release with the entries of other releases for some kinds."""
    entries = {kind: vars(entry) for kind, entry in release.artifacts.items()}
    return with_values(release, artifacts=entries | {k: vars(r.artifacts[k]) for k, r in others.items()})


@pytest.mark.parametrize(
    "values",
    [
        {"base": None},
        {"base_as_of": None},
        {"delta": 0},
        {"delta": 1.5},
        {"base": "../x"},
        {"base": 7},
        {"base_as_of": "2026-01-01T00:00:00"},
        {"base_as_of": 7},
    ],
)
def test_a_delta_of_another_shape_is_corrupt(store: ObjectStore, values: dict[str, Any]) -> None:
    delta = make_delta(store, make_release(store), 1)
    with pytest.raises(CorruptArtifact, match="not a release"):
        Release.from_json(with_values(delta, **values), "x")
