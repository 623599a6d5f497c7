"""Models that nobody waits for are asked beside those that somebody does; a leaf is given all that was gathered."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from prometheus_client import CollectorRegistry

from infra.model_routes import ModelRef
from infra.model_spec import InputSpec
from lookup_api.deadline import Deadline
from lookup_api.leaf_ranks import LeafRanks
from lookup_api.ranking.features import FEATURES
from lookup_api.root.asked_models import OnLeaf
from lookup_api.root.catalog import Named
from lookup_api.root.root_metrics import LATE, RootMetrics
from lookup_api.root.scoring import Root
from tests.lookup_api.test_shadows import PEOPLE, gathered
from tests.suites.model_folders import small_spec

SMALL = ModelRef(name="small", version="1")


def test_models_asked_one_by_one_wait_for_no_place_among_those_asked_together() -> None:
    root, end = Root(cast("Any", None), cast("Any", None), RootMetrics(CollectorRegistry()), 2), threading.Event()
    assert root._pool is not None
    busy = [root._pool.submit(end.wait) for _ in range(2)]
    named = [Named("release"), Named("small", SMALL, small_spec())]
    found = root.one_by_one().score(named, cast("Any", None), None, Deadline.after(0))
    assert [one.why for one in found] == [LATE, LATE]
    end.set()
    assert all(one.result() for one in busy)
    root._pool.shutdown()


class Seeing:
    """A leaf that keeps what it is given."""

    def score(self, model: ModelRef, columns: Mapping[str, Any], deadline: Deadline) -> np.ndarray:
        self.given = columns
        return np.zeros(PEOPLE, np.float32)

    def close(self) -> None: ...


def test_a_leaf_is_given_what_was_gathered_of_which_a_model_takes_its_own() -> None:
    """So that what it does not send is saved; a column of defaults alone is left out, and nothing stands in for it."""
    inputs = (InputSpec(name="walk", type="float16"), InputSpec(name="viewer_degree", max_age_s=1))
    leaf, seen, spec = Seeing(), replace(gathered(), age_s=2.0), small_spec(inputs=inputs)
    OnLeaf(SMALL, spec, leaf).of(seen, Deadline.after(60))
    assert leaf.given.keys() == set(FEATURES) - {"viewer_degree"}
    assert leaf.given["walk"].dtype == np.float16
    np.testing.assert_array_equal(leaf.given["jaccard"], seen.matrix[:, FEATURES.index("jaccard")])
    LeafRanks.open(SMALL, spec, leaf, 60, 1).score(seen.matrix)
    assert leaf.given.keys() == set(FEATURES)
    assert leaf.given["walk"].dtype == np.float16
