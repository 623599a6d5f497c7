"""Live facts learn of erasures that only the store's record knows, however late it can be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.erasures import record_erasure
from infra.settings import Settings
from infra.store import open_store
from jobs.erasure import adopt_erasures
from lookup_api.erasure_watch import ErasureWatch
from lookup_api.facts_access import FactsAccess
from lookup_api.metrics import Metrics


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYMK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


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


@pytest.mark.parametrize("record", [b"damaged", None])
def test_a_worker_that_starts_while_the_record_cannot_be_read_obeys_what_the_machine_read_last(
    tmp_path: Path, facts: FactsAccess, metrics: Metrics, cache: Path, record: bytes | None
) -> None:
    """Its live facts are new. The copy is this user's alone."""
    store = open_store(str(tmp_path / "store"), writable=True, create=True)
    record_erasure(store, 66, 5)
    ErasureWatch(store.uri, facts, 1.0, metrics).look()
    [copy] = (cache / "erasures").iterdir()
    assert copy.stat().st_mode & 0o777 == 0o600
    if record is None:
        (tmp_path / "store").rename(tmp_path / "away")
    else:
        store.put("erasures.json", record)
    again = FactsAccess(str(tmp_path / "elsewhere"), Settings(), metrics)
    ErasureWatch(store.uri, again, 1.0, metrics).look()
    assert hidden(again) == {66: "erased"}
    assert b"pymk_erasures_failures_total 1.0" in metrics.exposition()
    again.close()
    adopt_erasures(store.uri, Settings.model_validate({"api": {"facts": str(tmp_path / "third")}}))
    third = FactsAccess(str(tmp_path / "third"), Settings(), metrics)
    assert hidden(third) == {66: "erased"}
    third.close()


def test_a_copy_that_cannot_be_read_keeps_nobody_from_serving(
    tmp_path: Path, facts: FactsAccess, metrics: Metrics, cache: Path
) -> None:
    store = open_store(str(tmp_path / "store"), writable=True, create=True)
    record_erasure(store, 66, 5)
    ErasureWatch(store.uri, facts, 1.0, metrics).look()
    [copy] = (cache / "erasures").iterdir()
    copy.write_bytes(b"damaged")
    store.put("erasures.json", b"damaged")
    again = FactsAccess(str(tmp_path / "elsewhere"), Settings(), metrics)
    ErasureWatch(store.uri, again, 1.0, metrics).look()
    assert hidden(again) == {}
    again.close()


def test_a_store_without_a_record_has_erased_nobody_whatever_was_read_of_one_before(
    tmp_path: Path, facts: FactsAccess, metrics: Metrics
) -> None:
    """A store made anew in the place of another is another."""
    store = open_store(str(tmp_path / "store"), writable=True, create=True)
    record_erasure(store, 66, 5)
    ErasureWatch(store.uri, facts, 1.0, metrics).look()
    store.delete("erasures.json")
    again = FactsAccess(str(tmp_path / "elsewhere"), Settings(), metrics)
    ErasureWatch(store.uri, again, 1.0, metrics).look()
    assert hidden(again) == {}
    again.close()
