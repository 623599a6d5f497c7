"""Models that nobody waits for are asked beside those that somebody does."""

import threading
from typing import Any, cast

from prometheus_client import CollectorRegistry

from infra.model_routes import ModelRef
from lookup_api.deadline import Deadline
from lookup_api.root.catalog import Named
from lookup_api.root.root_metrics import LATE, RootMetrics
from lookup_api.root.scoring import Root
from tests.suites.model_folders import small_spec


def test_models_asked_one_by_one_wait_for_no_place_among_those_asked_together() -> None:
    root, end = Root(cast("Any", None), cast("Any", None), RootMetrics(CollectorRegistry()), 2), threading.Event()
    assert root._pool is not None
    busy = [root._pool.submit(end.wait) for _ in range(2)]
    named = [Named("release"), Named("small", ModelRef(name="small", version="1"), small_spec())]
    found = root.one_by_one().score(named, cast("Any", None), None, Deadline.after(0))
    assert [one.why for one in found] == [LATE, LATE]
    end.set()
    assert all(one.result() for one in busy)
    root._pool.shutdown()
