"""Lists that a routed model ranked at night are shown to its users, beside the release's own, and to nobody else."""

import gc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest

from infra.artifacts import find_manifest, open_artifact
from infra.blobs import decode_candidates, decode_ranking
from infra.erasures import record_erasure
from infra.errors import CorruptArtifact
from infra.graph import Graph
from infra.kv import CANDIDATES, RANKINGS
from infra.lmdb_tables import LmdbTables
from infra.model_routes import LOOKUP, Canary, ModelRef
from infra.releases import Release, ReleaseStore
from infra.settings import Settings
from infra.store import ObjectStore, open_store
from infra.variants import KIND, find_variant, variants_of
from jobs.context import Parent
from jobs.nightly_model import NAME, push_nightly
from jobs.variant_lists import make_all, rank_variants
from lookup_api.deadline import Deadline
from lookup_api.ladder import Query
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.lookup import NO_FACTS, Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.popular import most_connected
from lookup_api.served_release import ServedRelease
from lookup_api.variant_lists import VariantLists
from tests.lookup_api.test_routed_models import push, route
from tests.suites.live_store import LIVE_SETTINGS, SERVED, guarded_graph, live_artifacts, publish_live
from tests.suites.person_search import people_in, places_of

KINDS = (*SERVED, "graph", "embeddings", "features", "rankings")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def made(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    return live_artifacts(tmp_path_factory.mktemp("night"), graph)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/variants", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def night(store: ObjectStore, made: dict[str, Parent]) -> Release:
    return publish_live(store, made, kinds=KINDS, settings=LIVE_SETTINGS)


@pytest.fixture
def release(store: ObjectStore, night: Release) -> Iterator[ServedRelease]:
    opened = ServedRelease.open(store, night)
    yield opened
    opened.give_back()


@pytest.fixture(scope="module")
def degrees(made: dict[str, Parent]) -> npt.NDArray[np.float32]:
    """Everybody's, for golden batches that are like what is scored."""
    return np.array(np.load(made["features"].path / "now" / "user_features.npy")[:, 0], np.float32)


def tables_of(store: ObjectStore, night: Release, model: ModelRef) -> LmdbTables:
    variant = find_variant(store, night.release_id, model)
    assert variant is not None
    return LmdbTables(open_artifact(store, KIND, variant.artifact_id).path)


def test_the_nights_own_ranker_makes_the_nights_own_lists_to_the_byte(
    store: ObjectStore, night: Release, release: ServedRelease, graph: Graph
) -> None:
    """Order, prices, scores, reasons and first pages, of everybody."""
    version = push_nightly(store, night, 0).version
    ref = ModelRef(name=NAME, version=version)
    route(store, stable=ref)
    [variant] = make_all(store, night, LOOKUP, lambda line: None)
    assert (variant.users, variant.share) == (graph.users, 1.0)
    tables = tables_of(store, night, ref)
    for user in graph.ids.tolist():
        assert tables.get(RANKINGS, user) == release.tables.get(RANKINGS, user)
    tables.close()


def test_a_canary_ranks_for_its_share_alone_by_its_scores(
    store: ObjectStore,
    night: Release,
    release: ServedRelease,
    graph: Graph,
    degrees: npt.NDArray[np.float32],
    tmp_path: Path,
) -> None:
    ref = push(store, tmp_path / "1", "1", 1, degrees)
    canary = Canary(model=ref, share=0.3)
    route(store, canary=canary)
    [variant] = make_all(store, night, LOOKUP, lambda line: None)
    mine = canary.has_each(LOOKUP, np.asarray(graph.ids))
    assert 0 < variant.users == mine.sum() < graph.users
    tables = tables_of(store, night, ref)
    for user, has in zip(graph.ids.tolist(), mine.tolist(), strict=True):
        blob = tables.get(RANKINGS, user)
        assert (blob is not None) == has
        if blob is None:
            continue
        listed = {r[0] + one.base: r[1] for one in [decode_ranking(blob)] for r in one.items()}
        stored = decode_candidates(release.tables.get(CANDIDATES, user) or b"").ids
        if stored:
            degrees = release.users(list(listed)).features[:, 0]
            np.testing.assert_array_equal(list(listed.values()), degrees)
    tables.close()


def test_lists_are_made_once_and_a_larger_share_makes_more(
    store: ObjectStore, night: Release, degrees: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    ref, lines = push(store, tmp_path / "1", "1", 1, degrees), []
    for share in (0.2, 0.2, 0.6):
        route(store, canary=Canary(model=ref, share=share))
        make_all(store, night, LOOKUP, lines.append)
    assert sum("ranking lists" in line for line in lines) == 2
    [variant] = variants_of(store, night.release_id)
    assert (variant.share, variant.users) == (0.6, find_manifest(store, KIND, variant.artifact_id).rows)  # type: ignore[union-attr]


def test_lists_made_after_an_erasure_name_the_person_nowhere_and_are_otherwise_the_same(
    store: ObjectStore, night: Release, graph: Graph, tmp_path: Path
) -> None:
    """Neither as a candidate nor as one of the popular people whom those without candidates are shown."""
    ref = push(store, tmp_path / "1", "1", 1)
    route(store, stable=ref)
    gone = int(graph.ids[most_connected(graph.now.connections)[0]])
    listed = []
    for named in (True, False):
        [variant] = make_all(store, night, LOOKUP, lambda line: None)
        assert variant.users == graph.users - (not named)
        assert bool(places_of(open_artifact(store, KIND, variant.artifact_id).path, gone)) == named
        tables = tables_of(store, night, ref)
        listed.append({user: people_in(tables.get(RANKINGS, user) or b"") for user in graph.ids.tolist()})
        tables.close()
        record_erasure(store, gone, 5)
    before, after = listed
    assert before.pop(gone)
    assert not after.pop(gone)
    assert all(people - {gone} <= after[user] for user, people in before.items())


@pytest.mark.parametrize("asked", [{}, {"share": 0.5, "sticky": "client"}, {"share": 0.0}])
def test_nothing_is_ranked_where_nobody_has_it_unasked(
    asked: dict[str, Any], store: ObjectStore, night: Release, tmp_path: Path
) -> None:
    ref = push(store, tmp_path / "1", "1", 1)
    route(store, canary=Canary(model=ref, **asked) if asked else None, shadows=(ref,))
    assert make_all(store, night, LOOKUP, lambda line: None) == []


def test_a_model_that_fails_at_night_leaves_the_release_its_own_lists(
    store: ObjectStore, night: Release, tmp_path: Path
) -> None:
    ref, lines = push(store, tmp_path / "1", "1", 1), []
    route(store, canary=Canary(model=ref, share=1))
    model = next(iter(store.list("models/small/1/files")))
    store.put(model.key, b"other")
    rank_variants(store, night, lines.append)
    store.put("routes.json", b"{")
    rank_variants(store, night, lines.append)
    assert [line.partition(":")[0] for line in lines] == ["warning", "warning"]
    assert "canary small@1 of recommendations is taken off" in lines[0]
    assert list(variants_of(store, night.release_id)) == []


def lookup_on(store: ObjectStore, release: ServedRelease) -> Lookup:
    lookup = Lookup.of(Settings.model_validate(LIVE_SETTINGS.model_dump()), Metrics(), store.uri)
    assert lookup.models is not None
    lookup.models.follow_lists(lambda: _Held(release))
    lookup.models.look()
    return lookup


class _Held:
    def __init__(self, release: ServedRelease) -> None:
        self._release = release

    def __enter__(self) -> ServedRelease:
        return self._release

    def __exit__(self, *_: object) -> None:
        pass


def answered(lookup: Lookup, release: ServedRelease, user: int) -> dict[str, Any]:
    query = Query(user, 20, frozenset(), False)
    values = lookup.answer(query, release, NO_FACTS, Deadline.after(60)).values
    return {key: values.get(key) for key in ("source", "cache", "model", "variant", "degraded")} | {
        "items": orjson.dumps(values["items"])
    }


def test_the_lookup_shows_each_user_the_lists_of_their_variant(
    store: ObjectStore,
    night: Release,
    release: ServedRelease,
    graph: Graph,
    degrees: npt.NDArray[np.float32],
    tmp_path: Path,
) -> None:
    people = graph.ids[:80].tolist()
    own = {user: answered(lookup_on(store, release), release, user) for user in people}
    assert {(one["source"], one["model"]) for one in own.values()} == {("precomputed", None)}
    ref = push(store, tmp_path / "1", "1", -1, degrees)
    canary = Canary(model=ref, share=0.4)
    route(store, canary=canary)
    lookup = lookup_on(store, release)
    assert all(answered(lookup, release, user) == own[user] for user in people), "no lists were made yet"
    make_all(store, night, LOOKUP, lambda line: None)
    lookup.models.look()  # type: ignore[union-attr]
    changed = 0
    for user in people:
        found = answered(lookup, release, user)
        assert (found["source"], found["degraded"]) == ("precomputed", False)
        if not canary.has(LOOKUP, user):
            assert found["items"] == own[user]["items"]
            assert found["model"] is None
            continue
        assert (found["model"], found["variant"]) == ("small@1", "canary")
        again = answered(lookup, release, user)
        assert again == found | {"cache": again["cache"]}
        changed += found["items"] != own[user]["items"]
    assert changed > 10
    route(store)
    lookup.models.look()  # type: ignore[union-attr]
    assert all(answered(lookup, release, user)["items"] == own[user]["items"] for user in people)


def test_an_answer_of_another_model_has_another_tag(
    store: ObjectStore, night: Release, release: ServedRelease, graph: Graph, tmp_path: Path
) -> None:
    user, query = int(graph.ids[0]), Query(int(graph.ids[0]), 20, frozenset(), False)
    marks = [lookup_on(store, release).answer(query, release, NO_FACTS, Deadline.after(60)).mark]
    for version, factor in (("1", 1.0), ("2", -1.0)):
        route(store, stable=push(store, tmp_path / version, version, factor))
        make_all(store, night, LOOKUP, lambda line: None)
        found = lookup_on(store, release)
        assert answered(found, release, user)["model"] == f"small@{version}"
        marks.append(found.answer(query, release, NO_FACTS, Deadline.after(60)).mark)
    assert len(set(marks)) == 3


def test_damaged_lists_are_not_opened_and_the_releases_own_are_shown(
    store: ObjectStore, night: Release, release: ServedRelease, graph: Graph, tmp_path: Path
) -> None:
    route(store, stable=push(store, tmp_path / "1", "1", 1))
    [variant] = make_all(store, night, LOOKUP, lambda line: None)
    part = next(i.key for i in store.list(f"{KIND}/{variant.artifact_id}/data/"))
    store.put(part, b"other")
    lookup = lookup_on(store, release)
    assert answered(lookup, release, int(graph.ids[0]))["model"] is None


def test_lists_that_cannot_be_opened_are_counted_and_tried_again_after_a_wait(
    store: ObjectStore, night: Release, release: ServedRelease, tmp_path: Path
) -> None:
    ref = push(store, tmp_path / "1", "1", 1)
    route(store, stable=ref)
    [variant] = make_all(store, night, LOOKUP, lambda line: None)
    part = next(i.key for i in store.list(f"{KIND}/{variant.artifact_id}/data/"))
    whole = store.get(part).data
    store.put(part, b"other")
    now, counts = [0.0], LadderMetrics(Metrics().registry)
    lists = VariantLists(4.0, counts, lambda: now[0])
    refused = counts.lists_refused.labels(str(ref))._value
    for _ in range(3):
        assert not lists.follow(store, release, [ref])
    assert refused.get() == 1
    now[0] += 4.0
    assert not lists.follow(store, release, [ref])
    assert refused.get() == 2
    store.put(part, whole)
    assert not lists.follow(store, release, [ref]), "it is not yet time to try again"
    now[0] += 8.0
    assert lists.follow(store, release, [ref])


def test_lists_stay_open_for_whoever_holds_the_release_and_no_longer(
    store: ObjectStore, night: Release, graph: Graph, tmp_path: Path
) -> None:
    ref = push(store, tmp_path / "1", "1", 1)
    route(store, stable=ref)
    make_all(store, night, LOOKUP, lambda line: None)
    opened, lists = ServedRelease.open(store, night), VariantLists(1.0, LadderMetrics(Metrics().registry))
    assert lists.follow(store, opened, [ref])
    assert not lists.follow(store, opened, [ref])
    tables = lists._of[opened].tables[str(ref)][1]
    assert lists.get(opened, str(ref), int(graph.ids[0])) is not None
    opened.give_back()
    del opened
    gc.collect()
    with pytest.raises(Exception, match="read after close"):
        tables.get(RANKINGS, int(graph.ids[0]))


def test_cleaning_keeps_lists_of_kept_releases_and_forgets_those_of_others(
    store: ObjectStore, night: Release, made: dict[str, Parent], tmp_path: Path
) -> None:
    route(store, stable=push(store, tmp_path / "1", "1", 1))
    [variant] = make_all(store, night, LOOKUP, lambda line: None)
    releases = ReleaseStore(store)
    releases.clean(1, 0)
    assert find_manifest(store, KIND, variant.artifact_id) is not None
    for day in (1, 2):
        publish_live(store, made, night.time + timedelta(days=day), KINDS, LIVE_SETTINGS)
    releases.clean(1, 0)
    assert night.release_id not in [one.release_id for one in releases.list()]
    assert find_manifest(store, KIND, variant.artifact_id) is None
    assert list(store.list("variants/")) == []


def test_where_a_note_is_damaged_nothing_is_cleaned(store: ObjectStore, night: Release) -> None:
    store.put(f"variants/{night.release_id}/a@1.json", b"{")
    before = [info.key for info in store.list("")]
    with pytest.raises(CorruptArtifact, match="pymk model rank"):
        ReleaseStore(store).clean(1, 0)
    assert [info.key for info in store.list("") if not info.key.startswith("leases/")] == before
