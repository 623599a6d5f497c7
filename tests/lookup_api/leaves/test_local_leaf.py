"""A leaf opens models on first use, once, within its memory, and who has an open one never waits for another's load."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import NotFound, UsageError
from infra.model_routes import ModelRef
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves import residents
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.protocol import LeafFailed, Timed, TurnLate, refuse_late
from lookup_api.ranking.scorers import Scorer, open_scorer
from tests.lookup_api.ranking.test_scorers import MODELS, every_model, onnx_weights
from tests.suites.leaf_models import QUARTER, leaf_of, push, soon
from tests.suites.model_folders import columns_of, small_spec

COLUMNS = columns_of(small_spec())


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, threading.Event]]:
    """Events by version of a model: it does not load before its event is set."""
    found: dict[str, threading.Event] = {}

    def gated(folder: Path, spec: Any, device: str) -> Scorer:
        if spec.version in found:
            assert found[spec.version].wait(60)
        return open_scorer(folder, spec, device)

    monkeypatch.setattr(residents, "open_scorer", gated)
    yield found
    for gate in found.values():
        gate.set()


def wanted(store: ObjectStore, ref: ModelRef, columns: dict[str, Any]) -> np.ndarray:
    model, folder = Registry(store).open(ref.name, ref.version)
    return open_scorer(folder, model.spec).score(columns)


def total(leaf: LocalLeaf, name: str, **labels: str) -> float:
    metric = getattr(leaf.counts, name)
    return float((metric.labels(**labels) if labels else metric)._value.get())


@every_model
def test_every_kind_scores_as_it_does_alone(model: str, store: ObjectStore) -> None:
    changes, weights = MODELS[model]
    ref = push(store, "1", weights, **changes)
    spec = small_spec(**changes)
    columns = columns_of(spec)
    if "degree" in columns:
        columns["degree"] = np.arange(len(columns["degree"])) + 2**40
    leaf = leaf_of(store)
    for given in (columns, columns | {"other": np.zeros(7)}, {name: columns[name] for name in [*columns][:1]}):
        known = {name: given[name] for name in spec.columns if name in given}
        np.testing.assert_array_equal(leaf.score(ref, given, soon()), wanted(store, ref, known))
    assert total(leaf, "loads", outcome="loaded") == 1


def test_columns_that_no_model_names_tell_how_many_rows_have_defaults(store: ObjectStore) -> None:
    ref = push(store, "1")
    leaf = leaf_of(store)
    defaults = {name: np.full(5, 0.5, np.float32) for name in COLUMNS}
    np.testing.assert_array_equal(leaf.score(ref, {"other": np.zeros(5)}, soon()), wanted(store, ref, defaults))
    assert leaf.score(ref, {}, soon()).shape == (0,)


def test_of_many_who_ask_for_a_closed_model_one_loads_it(store: ObjectStore, gates: dict[str, Any]) -> None:
    ref = push(store, "1")
    leaf = leaf_of(store)
    gates["1"] = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(leaf.score, ref, COLUMNS, soon()) for _ in range(8)]
        gates["1"].set()
        for answer in answers:
            np.testing.assert_array_equal(answer.result(), wanted(store, ref, COLUMNS))
    assert total(leaf, "loads", outcome="loaded") == 1


def test_an_open_model_scores_while_others_load_and_who_cannot_wait_is_told(
    store: ObjectStore, gates: dict[str, Any]
) -> None:
    warm, cold = push(store, "1"), push(store, "2")
    leaf = leaf_of(store, load_threads=1)
    leaf.score(warm, COLUMNS, soon())
    gates["2"] = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(leaf.score, cold, COLUMNS, soon())
        with pytest.raises(TooLate, match="small@2: is being loaded"):
            leaf.score(cold, COLUMNS, Deadline.after(0.01))
        np.testing.assert_array_equal(leaf.score(warm, COLUMNS, soon()), wanted(store, warm, COLUMNS))
        gates["2"].set()
        np.testing.assert_array_equal(patient.result(), wanted(store, cold, COLUMNS))


def test_what_was_not_asked_for_longest_makes_room_but_pinned_models_stay(store: ObjectStore) -> None:
    pinned = push(store, "0", pinned=True)
    others = [push(store, str(version)) for version in range(1, 7)]
    leaf = leaf_of(store)
    for ref in (pinned, *others[:3], others[0], others[3], others[4]):
        leaf.score(ref, COLUMNS, soon())
    assert {one.ref for one in leaf.models.open_models()} == {pinned, others[0], others[3], others[4]}
    assert leaf.models.size_bytes == total(leaf, "bytes") == 4 * QUARTER
    assert total(leaf, "evicted") == 2
    np.testing.assert_array_equal(leaf.score(others[1], COLUMNS, soon()), wanted(store, others[1], COLUMNS))


def test_a_model_for_which_no_room_can_be_made_is_refused_and_others_stay(store: ObjectStore) -> None:
    small = push(store, "1", pinned=True)
    large = push(store, "2", resources={"memory_bytes": 4 * QUARTER})
    leaf = leaf_of(store)
    leaf.score(small, COLUMNS, soon())
    with pytest.raises(LeafFailed, match=r"small@2: takes 1,048,576 bytes.*leaves\.memory_mib"):
        leaf.score(large, COLUMNS, soon())
    assert [one.ref for one in leaf.models.open_models()] == [small]


def test_of_two_that_fit_one_at_a_time_the_second_waits_for_the_first_to_load(
    store: ObjectStore, gates: dict[str, Any]
) -> None:
    first, second = (push(store, version, resources={"memory_bytes": 3 * QUARTER}) for version in "12")
    leaf = leaf_of(store, load_threads=2)
    gates["1"] = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(leaf.score, ref, COLUMNS, soon()) for ref in (first, second)]
        while len(leaf.models._loading) < 2:
            pass
        gates["1"].set()
        for answer, ref in zip(answers, (first, second), strict=True):
            np.testing.assert_array_equal(answer.result(), wanted(store, ref, COLUMNS))
    assert len(leaf.models.open_models()) == 1


def test_a_model_that_nobody_pushed_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFound, match="no model small of version 9"):
        leaf_of(store).score(ModelRef(name="small", version="9"), COLUMNS, soon())


def test_what_could_not_be_opened_is_tried_again_after_a_while(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = push(store, "1")
    model = Registry(store).get("small", "1")
    key = f"{model.prefix}/{model.folder}/weights/model.json"
    whole = store.get(key).data
    store.put(key, b"{")
    leaf, now = leaf_of(store), [0.0]
    leaf.models._clock = lambda: now[0]
    for _ in range(2):
        with pytest.raises(LeafFailed, match=r"small@1: cannot be opened: .*model\.json"):
            leaf.score(ref, COLUMNS, soon())
    store.put(key, whole)
    with pytest.raises(LeafFailed, match="cannot be opened"):
        leaf.score(ref, COLUMNS, soon())
    assert total(leaf, "loads", outcome="failed") == 1
    now[0] = 2.0
    np.testing.assert_array_equal(leaf.score(ref, COLUMNS, soon()), wanted(store, ref, COLUMNS))


def looked_up() -> Callable[[Path], None]:
    """A graph that fails for a row whose number is not in its table."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Gather", ["table", "at"], ["score"])]
    return onnx_weights([("at", TensorProto.INT64, ["n"])], nodes, table=np.arange(10, dtype=np.float32))


LOOKED_UP: dict[str, Any] = {"kind": "onnx", "inputs": (InputSpec(name="at", type="int64"),)}


def test_a_model_that_fails_often_is_left_alone(store: ObjectStore) -> None:
    ref = push(store, "1", looked_up(), **LOOKED_UP)
    leaf = leaf_of(store)
    assert leaf.score(ref, {"at": np.arange(3)}, soon()).tolist() == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(LeafFailed, match="small@1: "):
            leaf.score(ref, {"at": np.array([99])}, soon())
    with pytest.raises(LeafFailed, match="left alone"):
        leaf.score(ref, {"at": np.arange(3)}, soon())
    assert [total(leaf, "requests", model="small@1", outcome=said) for said in ("failed", "open")] == [2, 1]


def test_columns_of_another_shape_are_the_callers_fault(store: ObjectStore) -> None:
    ref, leaf = push(store, "1"), leaf_of(store)
    for _ in range(5):
        with pytest.raises(UsageError, match="column walk is"):
            leaf.score(ref, COLUMNS | {"walk": np.zeros(3)}, soon())
    assert len(leaf.score(ref, COLUMNS, soon())) == 40


def test_a_list_that_is_too_long_is_refused_and_many_rows_are_scored_in_parts(store: ObjectStore) -> None:
    changes, weights = MODELS["onnx, lists"]
    resources = {"memory_bytes": QUARTER, "max_rows": 16}
    lists, rows = push(store, "1", weights, **changes, resources=resources), push(store, "2", resources=resources)
    leaf = leaf_of(store)
    with pytest.raises(UsageError, match="a list of 40 rows, it takes 16"):
        leaf.score(lists, COLUMNS, soon())
    np.testing.assert_array_equal(leaf.score(rows, COLUMNS, soon()), wanted(store, rows, COLUMNS))


def test_identical_requests_are_answered_from_the_cache_for_its_life(store: ObjectStore) -> None:
    ref, leaf = push(store, "1"), leaf_of(store, cache_mib=1)
    first = leaf.score(ref, COLUMNS, soon())
    expected = first.copy()
    first[:] = 0
    again = leaf.score(ref, COLUMNS | {"other": np.ones(40)}, soon())
    np.testing.assert_array_equal(again, expected)
    other = leaf.score(ref, COLUMNS | {"walk": COLUMNS["walk"] + 1}, soon())
    np.testing.assert_array_equal(other, wanted(store, ref, COLUMNS | {"walk": COLUMNS["walk"] + 1}))
    assert [total(leaf, "cache", result=said) for said in ("hit", "miss")] == [1, 2]


def test_without_a_setting_nothing_is_cached(store: ObjectStore) -> None:
    ref, leaf = push(store, "1"), leaf_of(store)
    leaf.score(ref, COLUMNS, soon())
    leaf.score(ref, COLUMNS, soon())
    assert total(leaf, "rows", model="small@1") == 80


def test_while_the_bucket_is_away_models_come_from_the_copy_on_this_machine(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.errors import StoreError

    store = open_store(f"s3://{s3_bucket}/leaf", writable=True)
    ref = push(store, "1")
    scores = leaf_of(store).score(ref, COLUMNS, soon())

    def away(uri: str) -> ObjectStore:
        raise StoreError(f"{uri}: away")

    monkeypatch.setattr(residents, "open_store", away)
    np.testing.assert_array_equal(leaf_of(store).score(ref, COLUMNS, soon()), scores)
    with pytest.raises(LeafFailed, match="away"):
        leaf_of(store).score(ModelRef(name="small", version="2"), COLUMNS, soon())


@pytest.mark.parametrize(("ms", "over_s", "kind"), [(1e5, 60, TooLate), (70_010, 70, TurnLate), (5, 60, TurnLate)])
def test_a_late_answer_is_the_models_where_its_call_began_early_enough(ms: float, over_s: float, kind: Any) -> None:
    with pytest.raises(TooLate) as late:
        refuse_late("small@1", ms, Deadline.after(-over_s))
    assert type(late.value) is kind
    refuse_late("small@1", ms, soon())


def test_a_model_that_answers_too_late_is_left_alone_unless_others_took_the_time(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, leaf = push(store, "1"), leaf_of(store)
    breaker = leaf.resident(ref, soon()).breaker
    for ms, is_open in ((5.0, False), (90_000.0, True)):
        monkeypatch.setattr(leaf._batches, "score", lambda *_, ms=ms: Timed(np.zeros(40, np.float32), ms))
        for _ in range(2):
            with pytest.raises(TooLate, match="too late"):
                leaf.score(ref, COLUMNS, Deadline.after(-1))
        assert breaker.open == is_open
