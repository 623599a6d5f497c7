"""The night's ranker is a model like any other: checked, routed to, scoring as the release does, cleaned with it."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.graph import Graph
from infra.model_golden import read_golden
from infra.model_reference import Reference
from infra.model_routes import LOOKUP, ModelRef, Route, RouteStore
from infra.models import Registry
from infra.releases import Release, ReleaseStore
from infra.settings import LadderSettings, ModelSettings
from infra.store import ObjectStore, open_store
from jobs.context import Parent
from jobs.model_rollout import RouteChange, change_route, roll_back
from jobs.nightly_model import (
    GOLDEN_ROWS,
    NAME,
    REFERENCE_ROWS,
    clean_nightly,
    push_nightly,
    try_push,
)
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.routed import OfFeatures
from lookup_api.ranking.scoring import RankingModel
from lookup_api.root.drift import LEAST, Drift
from lookup_api.root.references import References
from lookup_api.served_release import ServedRelease
from tests.conftest import SmallRelease
from tests.lookup_api.test_scores import asked, scoring_on, stored_of
from tests.suites.live_store import SERVED, guarded_graph, live_artifacts, publish_live

KINDS = (*SERVED, "features")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def made(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    return live_artifacts(tmp_path_factory.mktemp("night"), graph)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/nightly", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def release(store: ObjectStore, made: dict[str, Parent]) -> Release:
    return publish_live(store, made, kinds=KINDS)


def test_it_scores_as_the_release_does(store: ObjectStore, release: Release, made: dict[str, Parent]) -> None:
    pushed = push_nightly(store, release, 0)
    model, folder = Registry(store).open(NAME, release.artifacts["ranker"].artifact_id)
    assert model == pushed
    golden = read_golden(folder, model.spec)
    assert len(golden) == GOLDEN_ROWS == model.checks["rows"]
    rows = np.column_stack([golden.columns[name] for name in FEATURES])
    assert len(np.unique(rows, axis=0)) == GOLDEN_ROWS
    own, routed = RankingModel.open(made["ranker"].path), OfFeatures.open(folder)
    np.testing.assert_array_equal(routed.score(rows), own.score(rows))
    np.testing.assert_array_equal(golden.scores, own.score(rows))
    assert "recall_at_20" not in (folder / "card.md").read_text(), "tests' manifests hold no metrics"
    assert release.release_id in (folder / "card.md").read_text()


def reference_of(store: ObjectStore, release: Release) -> Reference:
    model = push_nightly(store, release, 0)
    told = References(store.uri, lambda: nullcontext(None)).read(ModelRef(name=NAME, version=model.version))
    assert told is not None
    return told


def test_it_tells_of_some_of_what_it_learnt_on(store: ObjectStore, release: Release) -> None:
    told = reference_of(store, release)
    assert 1000 < sum(told.scores.counts) <= REFERENCE_ROWS
    assert {sum(one.counts) for one in told.inputs.values()} == {sum(told.scores.counts)}


def test_what_it_tells_is_what_the_pairs_of_the_past_were(
    store: ObjectStore, release: Release, made: dict[str, Parent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.nightly_model.REFERENCE_ROWS", 10**8)
    monkeypatch.setattr("jobs.nightly_model.REFERENCE_BLOCKS", 100)
    told = reference_of(store, release)
    assert set(told.inputs) == set(FEATURES)
    past = made["features"].path / "past"
    parts = [pq.read_table(part) for part in sorted(past.glob("part-*.parquet"))]
    assert sum(told.scores.counts) == sum(part.num_rows for part in parts)
    shared = np.concatenate([part["common_neighbours"].to_numpy() for part in parts])
    found = told.inputs["common_neighbours"]
    assert found.counts[:-2] == tuple(np.histogram(shared, [-np.inf, *np.nextafter(found.edges, np.inf)])[0])


def test_the_ranker_of_the_release_is_held_against_it(graph: Graph, store: ObjectStore, release: Release) -> None:
    push_nightly(store, release, 0)
    opened, scoring = ServedRelease.open(store, release, LadderSettings()), scoring_on(store)
    counts = scoring.root._counts
    drift = Drift(ModelSettings(drift_every=1), counts, References(store.uri, lambda: nullcontext(opened)))
    counts.saw = drift.saw
    viewers = [int(user) for user in graph.ids[:LEAST]]
    asked_of = [viewer for viewer in viewers if stored_of(opened, viewer).ids]
    for viewer in asked_of * 2:
        asked(scoring, opened, viewer, list(stored_of(opened, viewer).ids))
        drift.count(drift._waiting.get_nowait())  # type: ignore[arg-type]
    found = [
        sample.value
        for family in counts.score_drift.collect()
        for sample in family.samples
        if sample.labels == {"model": "release"}
    ]
    assert len(found) == 1
    assert 0 <= found[0] < 3
    told = {sample.labels["input"] for family in counts.input_drift.collect() for sample in family.samples}
    assert told == set(FEATURES)
    opened.give_back()
    scoring.root.close()


def test_defaults_are_what_is_known_of_nobody_and_ages_those_after_which_they_stand(
    store: ObjectStore, release: Release
) -> None:
    inputs = {one.name: one for one in push_nightly(store, release, 30).spec.inputs}
    assert tuple(inputs) == FEATURES
    assert (inputs["common_neighbours"].default, inputs["candidate_days_since_friend"].default) == (0, -1)
    assert inputs["log_walk"].default == pytest.approx(np.log(1e-6))
    dated = {name for name, one in inputs.items() if one.max_age_s}
    assert dated == {
        f"{side}_{name}"
        for side in ("viewer", "candidate")
        for name in ("days_since_friend", "friends_last_quarter", "friends_last_year")
    }
    assert inputs["viewer_friends_last_year"].max_age_s == 30 * 86_400


def test_it_is_pushed_once_and_a_failure_is_told(store: ObjectStore, release: Release) -> None:
    told: list[str] = []
    try_push(store, release, 0, told.append)
    try_push(store, release, 7, told.append)
    assert len(Registry(store).list()) == 1
    Registry(store).remove(NAME, release.artifacts["ranker"].artifact_id)
    store.delete_folder(f"ranker/{release.artifacts['ranker'].artifact_id}/")
    try_push(store, release, 0, told.append)
    assert [line.startswith("warning: the ranker could not be pushed") for line in told] == [False, False, True]
    assert Registry(store).list() == []


def test_it_goes_with_its_artifact_unless_it_is_routed_to(store: ObjectStore, release: Release) -> None:
    version = push_nightly(store, release, 0).version
    assert clean_nightly(store) == [], "its artifact is there"
    change_route(store, LOOKUP, RouteChange(stable=f"{NAME}@{version}"))
    store.delete_folder(f"ranker/{version}/")
    assert clean_nightly(store) == []
    change_route(store, LOOKUP, RouteChange(stable="release"))
    assert clean_nightly(store) == [], "the route may go back to it"
    assert roll_back(store, LOOKUP).route.stable is not None
    for stable in ("release", f"{NAME}@{version}", "release"):
        change_route(store, LOOKUP, RouteChange(stable=stable), force=True)
    RouteStore(store).change(LOOKUP, lambda now: now.moved_to(Route()), "2026-01-01T00:00:00Z", "a")
    assert clean_nightly(store) == [f"{NAME}@{version}"]
    assert Registry(store).list() == []


def test_where_routes_cannot_be_read_no_model_is_removed(store: ObjectStore, release: Release) -> None:
    version = push_nightly(store, release, 0).version
    store.delete_folder(f"ranker/{version}/")
    store.put("routes.json", b"{")
    assert clean_nightly(store) == []
    assert len(Registry(store).list()) == 1


def test_without_any_pair_there_is_still_a_golden_row(tmp_path: Path, made: dict[str, Parent]) -> None:
    bare = dict(made)
    copy = tmp_path / "features"
    shutil.copytree(made["features"].path, copy)
    for part in (copy / "now").glob("part-*.parquet"):
        part.unlink()
    bare["features"] = Parent("features-1", copy, made["features"].content_hash, made["features"].manifest)
    store = open_store(str(tmp_path / "store"), create=True)
    assert push_nightly(store, publish_live(store, bare, kinds=KINDS), 0).checks["rows"] == 1


def test_every_night_pushes_its_ranker(small_release: SmallRelease) -> None:
    store = open_store(small_release.store)
    current = ReleaseStore(store).current()
    assert current is not None
    model, folder = Registry(store).open(NAME, current.artifacts["ranker"].artifact_id)
    assert model.spec.columns == FEATURES
    assert "recall_at_20" in (folder / "card.md").read_text()
