"""Live facts learn of erasures that only the store's record knows, however late it can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.erasures import record_erasure
from infra.settings import Settings
from infra.store import open_store
from lookup_api.erasure_watch import ErasureWatch
from lookup_api.facts_access import FactsAccess
from lookup_api.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def facts(tmp_path: Path, metrics: Metrics) -> Iterator[FactsAccess]:
    opened = FactsAccess(str(tmp_path / "live"), Settings(), metrics)
    yield opened
    opened.close()


def hidden(facts: FactsAccess) -> dict[int, str]:
    found = facts.of(1)
    assert found is not None
    return dict(found.hidden)


def test_a_store_that_was_away_is_asked_again_and_its_erasures_are_obeyed(
    tmp_path: Path, facts: FactsAccess, metrics: Metrics
) -> None:
    uri = str(tmp_path / "store")
    watch = ErasureWatch(uri, facts, 1.0, metrics)
    watch.look()
    assert b"pymk_erasures_failures_total 1.0" in metrics.exposition()
    assert hidden(facts) == {}
    store = open_store(uri, writable=True, create=True)
    record_erasure(store, 66, 5)
    watch.look()
    assert hidden(facts) == {66: "erased"}
    record_erasure(store, 67, 5)
    watch.look()
    assert hidden(facts) == {66: "erased", 67: "erased"}
    assert b"pymk_erasures_failures_total 1.0" in metrics.exposition()


def test_live_facts_that_begin_anew_learn_of_the_erased_though_the_record_is_damaged_by_then(
    tmp_path: Path, facts: FactsAccess, metrics: Metrics
) -> None:
    store = open_store(str(tmp_path / "store"), writable=True, create=True)
    record_erasure(store, 66, 5)
    watch = ErasureWatch(store.uri, facts, 1.0, metrics)
    watch.look()
    store.put("erasures.json", b"damaged")
    again = FactsAccess(str(tmp_path / "elsewhere"), Settings(), metrics)
    watch._facts = again
    watch.look()
    assert hidden(again) == {66: "erased"}
    assert b"pymk_erasures_failures_total 1.0" in metrics.exposition()
    again.close()
