"""A worker ranks live by the models that the lookup is routed to, follows a change, and outlives a broken model."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xgboost as xgb

from infra.errors import StoreError
from infra.model_golden import Golden
from infra.model_routes import FILE, LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec, ModelSpec
from infra.models import Registry
from infra.settings import LadderSettings, Settings
from infra.store import ObjectStore, open_store
from lookup_api import leaf_ranks
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from lookup_api.ladder import Ask, Offer, Query
from lookup_api.ladder_metrics import LadderMetrics
from lookup_api.leaf_ranks import HereRanks
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.protocol import LeafLate, ModelHangs, Timed
from lookup_api.live_rung import ROUTED_SHARE, Live
from lookup_api.lookup import NO_FACTS, Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.model_check import check_model
from lookup_api.ranking.routed import OfFeatures
from lookup_api.ranking.scorers import open_scorer, rows_of
from lookup_api.routed_models import RoutedModels
from lookup_api.served_release import ServedRelease
from tests.infra.test_models import NOW
from tests.lookup_api.leaves.test_batches import Held
from tests.lookup_api.ranking.test_scorers import above_mean, onnx_weights
from tests.lookup_api.test_live import outdating
from tests.suites.leaf_models import soon
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.model_folders import columns_of, small_spec, write_folder
from tests.suites.served_store import current_release

INPUT = (InputSpec(name="candidate_degree"),)


def weights_of(factor: float) -> Callable[[Path], None]:
    """A graph that multiplies the candidate's degree, so that its order is known."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["candidate_degree", "factor"], ["score"])]
    inputs = [("candidate_degree", TensorProto.FLOAT, ["n"])]
    return onnx_weights(inputs, nodes, factor=np.float32(factor))


def push(
    store: ObjectStore, folder: Path, version: str, factor: float, degrees: npt.NDArray[np.float32] | None = None
) -> ModelRef:
    """degrees: of the golden batch, as a release has them; drawn, if not given."""
    spec = small_spec(version=version, kind="onnx", inputs=INPUT)
    columns = columns_of(spec) if degrees is None else {"candidate_degree": degrees}
    golden = Golden(columns, columns["candidate_degree"] * np.float32(factor))
    made = write_folder(folder, spec, weights_of(factor), golden)
    Registry(store).push(made, check_model, NOW, "a")
    return ModelRef(name="small", version=version)


def route(store: ObjectStore, **parts: Any) -> None:
    RouteStore(store).change(LOOKUP, routed(Route(**parts)), "2026-01-01T00:00:00Z", "a")


def breaker(name: str) -> Breaker:
    return Breaker(name, 2, 60)


def models_of(store: ObjectStore, poll_s: float = 3600) -> RoutedModels:
    return RoutedModels(store.uri, poll_s, LadderMetrics(Metrics().registry), breaker)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/routed", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


def test_routes_are_followed_from_look_to_look(store: ObjectStore, tmp_path: Path) -> None:
    up, down = push(store, tmp_path / "1", "1", 1), push(store, tmp_path / "2", "2", -1)
    models = models_of(store)
    models.look()
    assert (models.chosen(1), models.stamp) == (None, 0)
    route(store, stable=up, canary=Canary(model=down, share=0.3))
    models.look()
    names = [getattr(models.chosen(user), "name", None) for user in range(400)]
    assert set(names) == {"small@1", "small@2"}
    wanted = RouteStore(store).read().of(LOOKUP).route.variants(LOOKUP, np.arange(400))
    assert [name == "small@2" for name in names] == wanted.tolist()
    stamp = models.stamp
    models.look()
    assert models.stamp == stamp, "nothing changed"
    route(store)
    models.look()
    assert models.chosen(1) is None
    assert models.stamp > stamp


def test_where_a_model_cannot_be_opened_those_before_rank_until_it_can(store: ObjectStore, tmp_path: Path) -> None:
    first, second = push(store, tmp_path / "1", "1", 1), push(store, tmp_path / "2", "2", -1)
    now = [0.0]
    models = RoutedModels(store.uri, 1.0, LadderMetrics(Metrics().registry), breaker, clock=lambda: now[0])
    route(store, stable=first)
    models.look()
    model = Registry(store).get("small", "2")
    card = f"{model.prefix}/{model.folder}/card.md"
    whole = store.get(card).data
    store.put(card, b"other")
    route(store, stable=second, canary=Canary(model=second, share=1))
    models.look()
    assert models.chosen(1).name == "small@1"  # type: ignore[union-attr]
    store.put(card, whole)
    models.look()
    assert models.chosen(1).name == "small@1", "it is not yet time to try again"  # type: ignore[union-attr]
    now[0] = 5.0
    models.look()
    assert (models.chosen(1).name, models.chosen(1).variant) == ("small@2", "canary")  # type: ignore[union-attr]


def test_damaged_or_lost_routes_change_nothing(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = models_of(store)
    route(store, stable=push(store, tmp_path / "1", "1", 1))
    models.look()
    store.put(FILE, b"{")
    models.look()
    assert models.chosen(1) is not None
    assert models._counts.route_failures._value.get() == 1


def test_a_worker_that_starts_while_the_bucket_is_away_ranks_by_what_it_ranked_by_last(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{s3_bucket}/routed", writable=True)
    route(store, stable=push(store, tmp_path / "1", "1", 1))
    models_of(store).look()

    def away(uri: str) -> ObjectStore:
        raise StoreError(f"{uri}: away")

    monkeypatch.setattr("lookup_api.routed_models.open_store", away)
    models = models_of(store)
    models.look()
    assert models.chosen(1).name == "small@1"  # type: ignore[union-attr]


def test_it_follows_by_itself(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    models = models_of(store, poll_s=0.01)
    models.start()
    route(store, stable=push(store, tmp_path / "1", "1", 1))
    while models.chosen(1) is None:  # the suite's own limit ends a wait for ever
        pass
    models.stop()


def test_a_model_takes_its_columns_of_the_rankers_input_in_their_types(tmp_path: Path) -> None:
    names = ("viewer_degree", "common_neighbours", "walk")
    for place, types in enumerate([("float32",) * 3, ("int32", "float16", "float32")]):
        spec = small_spec(inputs=tuple(InputSpec(name=n, type=t) for n, t in zip(names, types, strict=True)))
        folder = write_folder(tmp_path / f"{place}", spec, trees)
        matrix = np.random.default_rng(1).normal(size=(50, len(FEATURES))).astype(np.float32) * 9
        columns = {one.name: matrix[:, FEATURES.index(one.name)].astype(one.dtype) for one in spec.inputs}
        np.testing.assert_array_equal(OfFeatures.open(folder).score(matrix), open_scorer(folder).score(columns))


def trees(folder: Path) -> None:
    x = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32) * 9
    xgb.train({"max_depth": 3, "nthread": 1}, xgb.DMatrix(x, x.sum(axis=1)), 5).save_model(folder / "model.json")


def test_while_a_call_in_this_process_hangs_no_other_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(spec=small_spec())
    here, columns = HereRanks(held, ColumnList.of(held.spec)), {"walk": np.ones(2, np.float32)}
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(here.timed, columns, soon())
        while not held.calls:
            pass
        with monkeypatch.context() as patch:
            patch.setattr(leaf_ranks, "HANGS_S", 0.0)
            with pytest.raises(ModelHangs):
                here.timed(columns, soon())
        held.go_on.set()
        assert stuck.result().scores.shape == here.timed(columns, soon()).scores.shape == (2,)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (small_spec(kind="onnx", inputs=(InputSpec(name="walk"),), unit="list"), "is no ranker"),
        (small_spec(kind="onnx", inputs=(InputSpec(name="walk", width=2),)), "not those of model.toml|is no ranker"),
    ],
)
def test_what_is_no_ranker_does_not_rank(spec: ModelSpec, said: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=said):
        OfFeatures.open(write_folder(tmp_path, spec, above_mean()))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("night")
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "made", guarded_graph()))
    return store


@pytest.fixture(scope="module")
def release(night: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(night) as opened:
        yield opened


def lookup_on(store: ObjectStore) -> Lookup:
    ladder = LadderSettings(live_budget_ms=60_000, ann_budget_ms=60_000, breaker_failures=3, breaker_wait_s=3600)
    settings = LIVE_SETTINGS.model_copy(update={"ladder": ladder})
    lookup = Lookup.of(Settings.model_validate(settings.model_dump()), Metrics(), store.uri)
    assert lookup.models is not None
    lookup.models.look()
    return lookup


def offered(lookup: Lookup, release: ServedRelease, user_id: int) -> Offer:
    rung = next(rung for rung in lookup.ladder.rungs if isinstance(rung, Live))
    offer = rung.offer(Ask(Query(user_id, 100, frozenset(), False), release, NO_FACTS, Deadline.after(60)))
    assert offer is not None
    return offer


def scores(offer: Offer) -> dict[int, float]:
    return {offer.ranking.base + record[0]: record[1] for record in offer.ranking.items()}


def test_the_live_rung_ranks_by_the_routed_model_and_keeps_no_list_of_another(
    night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    user = int(guarded_graph().ids[0])
    own, lookup = offered(lookup_on(night), release, user), lookup_on(night)
    assert scores(offered(lookup, release, user)) == scores(own)
    assert offered(lookup, release, user).cache == "l1"
    ref = push(night, tmp_path / "1", "1", 1)
    route(night, stable=ref)
    lookup.models.look()  # type: ignore[union-attr]
    routed_offer = offered(lookup, release, user)
    assert routed_offer.cache == "none"
    people = list(scores(routed_offer))
    degrees = release.users(people).features[:, 0]
    np.testing.assert_array_equal(list(scores(routed_offer).values()), degrees)
    assert offered(lookup, release, user).cache == "l1"
    route(night)
    lookup.models.look()  # type: ignore[union-attr]
    assert scores(offered(lookup, release, user)) == scores(own)


def test_where_a_routed_model_fails_the_releases_own_ranks_and_the_list_is_not_kept(
    night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    user = int(guarded_graph().ids[1])
    own = scores(offered(lookup_on(night), release, user))
    route(night, canary=Canary(model=push(night, tmp_path / "nan", "nan", 2), share=1))
    lookup = lookup_on(night)
    assert lookup.models is not None
    chosen = lookup.models.chosen(user)
    assert chosen is not None

    class Broken:
        spec = chosen.model.spec

        def timed(self, columns: Mapping[str, np.ndarray], deadline: Deadline) -> Timed:
            return Timed(np.full(rows_of(columns), np.nan, np.float32), 1.0)

    broken = replace(chosen, model=replace(chosen.model, model=Broken()))
    lookup.models._open = replace(lookup.models._open, canary=broken)
    for _ in range(5):
        offer = offered(lookup, release, user)
        assert (offer.cache, scores(offer)) == ("none", own)
    failed = lookup.counts.models.labels("small@nan", "canary", "failed")._value.get()
    assert failed == 3, "then its breaker is open"
    query, facts = Query(user, 10, frozenset(), False), outdating(guarded_graph(), 1)
    answers = [lookup.answer(query, release, facts, Deadline.after(60)).values for _ in range(2)]
    assert [(answer["source"], answer["cache"]) for answer in answers] == [("live", "none")] * 2
    route(night)


def test_a_routed_model_that_hangs_leaves_time_for_the_releases_own_ranker(
    night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    user = int(guarded_graph().ids[1])
    own = scores(offered(lookup_on(night), release, user))
    route(night, canary=Canary(model=push(night, tmp_path / "hangs", "hangs", 2), share=1))
    lookup, left = lookup_on(night), []
    assert lookup.models is not None
    chosen = lookup.models.chosen(user)
    assert chosen is not None

    class Hangs:
        spec = chosen.model.spec

        def timed(self, columns: Mapping[str, np.ndarray], deadline: Deadline) -> Timed:
            left.append(deadline.left_s)
            raise LeafLate("no answer")

    hangs = replace(chosen, model=replace(chosen.model, model=Hangs()))
    lookup.models._open = replace(lookup.models._open, canary=hangs)
    assert scores(offered(lookup, release, user)) == own
    assert 0 < left[0] <= 60 * ROUTED_SHARE
    route(night)


def test_finished_answers_of_an_earlier_route_are_not_given_again(
    night: ObjectStore, release: ServedRelease, tmp_path: Path
) -> None:
    lookup = lookup_on(night)
    user = int(guarded_graph().ids[2])
    query = Query(user, 10, frozenset(), False)

    def cache() -> str:
        return str(lookup.answer(query, release, NO_FACTS, Deadline.after(60)).values["cache"])

    assert [cache(), cache()] == ["none", "l1"]
    route(night, stable=push(night, tmp_path / "3", "3", 3))
    lookup.models.look()  # type: ignore[union-attr]
    assert [cache(), cache()] == ["none", "l1"]
    route(night)
