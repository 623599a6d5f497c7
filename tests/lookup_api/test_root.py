"""Models that nobody waits for are asked beside those that somebody does; a leaf is given all that was gathered."""

import threading
from dataclasses import replace
from typing import Any, cast

import numpy as np
from prometheus_client import CollectorRegistry

from infra.model_routes import CANARY, ModelRef
from infra.model_spec import InputSpec
from lookup_api.canary_guard import Guard
from lookup_api.deadline import Deadline
from lookup_api.leaves.protocol import Timed
from lookup_api.model_marks import NoMark
from lookup_api.ranking.features import FEATURES
from lookup_api.root.asked_models import OnLeaf, Routed
from lookup_api.root.canaries import Watched
from lookup_api.root.catalog import Named
from lookup_api.root.root_metrics import LATE, RootMetrics
from lookup_api.root.scoring import Root
from tests.lookup_api.test_shadows import PEOPLE, gathered
from tests.suites.leaf_models import soon
from tests.suites.model_folders import small_spec

SMALL = ModelRef(name="small", version="1")


def test_models_asked_one_by_one_wait_for_no_place_among_those_asked_together() -> None:
    root, end = Root(cast("Any", None), cast("Any", None), RootMetrics(CollectorRegistry()), 2), threading.Event()
    assert root._pool is not None
    busy = [root._pool.submit(end.wait) for _ in range(2)]
    named = [Named("release"), Named("small", SMALL, small_spec())]
    found = root.one_by_one(root.leaf).score(named, cast("Any", None), None, Deadline.after(0))
    assert [one.why for one in found] == [LATE, LATE]
    end.set()
    assert all(one.result() for one in busy)
    root._pool.shutdown()


class Stub:
    """A model that keeps what it is given."""

    def __init__(self) -> None:
        self.spec = small_spec(inputs=(InputSpec(name="walk", type="int32", default=2147483647),))
        self.given: Any = None

    def timed(self, *asked: Any) -> Timed:
        self.given = asked[-2]
        return Timed(np.zeros(PEOPLE, np.float32), 60.0)


def test_a_canary_is_judged_by_the_time_of_its_own_calls() -> None:
    guard, leaf = Guard(np.zeros(50, np.float32)), Stub()
    watched = Watched("", guard, NoMark())
    metrics = RootMetrics(CollectorRegistry())
    root = Root(cast("Any", None), cast("Any", leaf), metrics, watched=lambda surface, model: watched)
    named = [Named("home", SMALL, leaf.spec, CANARY)]
    for _ in range(20):
        assert root.score(named, gathered(), None, soon())[0].scores is not None
    assert guard.verdict() == "p95 of scoring is 60.0 ms, 50 are allowed"


def test_a_routed_model_has_defaults_that_float32_does_not_hold() -> None:
    model = Stub()
    known = np.arange(PEOPLE) > 0
    Routed("small@1", model).of(replace(gathered(), stored=known, found=known), soon())
    assert model.given["walk"].dtype == np.int32
    assert (model.given["walk"] == 2147483647).tolist() == (~known).tolist()


def test_a_leaf_is_given_what_was_gathered_of_which_a_model_takes_its_own() -> None:
    """So that what it does not send is saved; a column of defaults alone is left out, and nothing stands in for it."""
    leaf, seen = Stub(), replace(gathered(), age_s=2.0)
    leaf.spec = small_spec(
        inputs=(InputSpec(name="walk", type="float16"), InputSpec(name="viewer_degree", max_age_s=1))
    )
    for model in (OnLeaf(SMALL, leaf.spec, cast("Any", leaf)), Routed("small@1", leaf)):
        model.of(seen, soon())
        assert leaf.given.keys() == set(FEATURES) - {"viewer_degree"}
        assert leaf.given["walk"].dtype == np.float16
        np.testing.assert_array_equal(leaf.given["jaccard"], seen.matrix[:, FEATURES.index("jaccard")])
