"""Models on leaves in other processes answer as models in this process do, and a leaf that ends is not missed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest

from infra.graph import Graph
from infra.model_spec import InputSpec
from infra.serving_settings import LeafSettings
from infra.settings import LadderSettings, Settings
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline
from lookup_api.ladder import NoFacts
from lookup_api.load import FULL
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.features import FEATURES
from lookup_api.score_request import ScoreQuery
from lookup_api.scores import Scoring
from lookup_api.served_release import ServedRelease
from tests.suites.leaf_models import push, trees
from tests.suites.leaf_processes import leaves
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.served_store import current_release

MODELS = ("small@1", "small@2", "small@3", "release")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def store(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """With three models of different columns and types, some of which are missing of most pairs."""
    folder = tmp_path_factory.mktemp("fleet")
    store = open_store(str(folder / "store"), create=True)
    publish_live(store, live_artifacts(folder / "made", graph))
    for number, names in enumerate((FEATURES[:12], FEATURES[5:35], FEATURES), 1):
        inputs = tuple(
            InputSpec(name=name, default=0.5, type="float16" if name == "walk" else "float32") for name in names
        )
        push(store, str(number), trees(number, len(names)), inputs=inputs)
    return store


@contextmanager
def scoring_on(store: ObjectStore, *addresses: str) -> Iterator[Scoring]:
    values = LIVE_SETTINGS.model_copy(update={"leaves": LeafSettings(addresses=addresses, timeout_ms=60_000)})
    settings = Settings.model_validate(values.model_dump())
    lookup = Lookup.of(settings, Metrics(), store.uri)
    assert lookup.root is not None
    yield Scoring(lookup.root, lookup.counts, LadderSettings(), 5)
    lookup.root.close()


@pytest.fixture(scope="module")
def release(store: ObjectStore) -> Iterator[ServedRelease]:
    with current_release(store) as opened:
        yield opened


def query_of(graph: Graph, number: int) -> ScoreQuery:
    rng = np.random.default_rng(number)
    people = rng.choice(graph.ids, rng.integers(1, 40), replace=False).tolist()
    return ScoreQuery(int(rng.choice(graph.ids)), tuple(people), MODELS)


def answered(scoring: Scoring, query: ScoreQuery, release: ServedRelease) -> bytes:
    told = scoring.answer(query, release, NoFacts(), Deadline.after(60), FULL)
    assert not told["failed"]
    return orjson.dumps(told | {"age_s": 0}, option=orjson.OPT_SERIALIZE_NUMPY)


@pytest.mark.parametrize("requests", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_leaves_give_the_answers_that_this_process_gives(
    graph: Graph, store: ObjectStore, release: ServedRelease, requests: int, tmp_path: Path
) -> None:
    """Bit for bit, as a leaf ends and comes again."""
    with (
        leaves(store, 2) as fleet,
        scoring_on(store) as here,
        scoring_on(store, *(one.address for one in fleet)) as there,
    ):
        for number in range(requests):
            query = query_of(graph, number)
            assert answered(there, query, release) == answered(here, query, release), number
            if number in (requests // 3, requests * 2 // 3):
                gone = fleet[0]  # the other is there: whether this one is asked again at once depends on its breaker
                gone.kill()
                assert answered(there, query, release) == answered(here, query, release), number
                gone.start()
                gone.wait_until_ready()
