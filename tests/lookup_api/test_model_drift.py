"""How far what models see has moved is told, off the requests' way, and no model's without a reference."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.errors import NotFound, StoreError
from infra.model_reference import FILE, Reference
from infra.model_routes import NIGHTLY, RELEASE, ModelRef
from infra.models import Registry
from infra.settings import ModelSettings
from infra.store import ObjectStore, open_store
from lookup_api.root import drift
from lookup_api.root.drift import IDLE_S, LEAST, MOST_MODELS, MOST_ROWS, MOST_WAITING, Drift, Sample, Window
from lookup_api.root.references import References
from lookup_api.root.root_metrics import RootMetrics
from tests.infra.test_models import NOW
from tests.suites.model_folders import INPUTS, any_folder, small_spec

SPEC = small_spec()
ROWS = 300


def columns(draw: np.random.Generator, shift: float = 0.0, rows: int = ROWS) -> dict[str, Any]:
    """A request: pairs differ from row to row, the viewer does not."""
    pair = {name: draw.normal(shift, size=rows) for name in INPUTS if not name.startswith("viewer_")}
    return pair | {"viewer_degree": np.full(rows, draw.normal(shift))}


def samples(requests: int, shift: float = 0.0, model: str = "small@1") -> Iterator[Sample]:
    draw = np.random.default_rng(requests)
    for _ in range(requests):
        given = columns(draw, shift)
        yield Sample(model, given, given["walk"].astype(np.float32))


def reference() -> Reference:
    draw = np.random.default_rng(1)
    learnt = [columns(draw, rows=50) for _ in range(1000)]
    together = {name: np.concatenate([one[name] for one in learnt]) for name in INPUTS}
    return Reference.of(SPEC, together, together["walk"])


REFERENCE = reference()


class Known:
    """References by hand, that fail as often as is told."""

    def __init__(self, found: Reference | None = REFERENCE) -> None:
        self.found = found
        self.versions: dict[str, ModelRef] = {}
        self.failures: list[Exception] = []
        self.reads = 0

    def version(self, model: str) -> ModelRef:
        return self.versions.get(model) or ModelRef.parse(model)

    def read(self, ref: ModelRef) -> Reference | None:
        self.reads += 1
        if self.failures:
            raise self.failures.pop()
        return self.found


def counting(known: Any, clock: Callable[[], float] = lambda: 0.0, **settings: int) -> tuple[Drift, CollectorRegistry]:
    registry = CollectorRegistry()
    chosen = ModelSettings(**{"drift_every": 1} | settings)
    return Drift(chosen, RootMetrics(registry), known, clock=clock), registry


def psi(registry: CollectorRegistry, name: str = "", model: str = "small@1") -> float | None:
    if name:
        return registry.get_sample_value("pymk_model_input_psi", {"model": model, "input": name})
    return registry.get_sample_value("pymk_model_score_psi", {"model": model})


def see(watched: Drift, requests: int, shift: float = 0.0, model: str = "small@1") -> None:
    for sample in samples(requests, shift, model):
        watched.count(sample)


def test_what_is_as_where_it_learnt_has_not_moved_and_what_moved_has() -> None:
    watched, registry = counting(Known())
    see(watched, 200)
    assert [psi(registry), *(psi(registry, name) for name in INPUTS)] == [0, 0, 0, 0]
    watched, registry = counting(Known())
    see(watched, 200, shift=1.0)
    found = [psi(registry), *(psi(registry, name) for name in INPUTS)]
    assert all(one is not None and 0.4 < one < 1.2 for one in found), "of two normals it is 1, and bins lose some"


def test_the_viewer_counts_once_a_request_and_rows_are_bounded() -> None:
    window = Window(REFERENCE, 1000)
    names = list(REFERENCE.inputs)
    for rows in (1, 255, 256, 257, 1000):
        before = window._now.sum(axis=1)
        window.add(columns(np.random.default_rng(1), rows=rows), np.zeros(rows, np.float32))
        counted = dict(zip([*names, "scores"], (window._now.sum(axis=1) - before).tolist(), strict=True))
        step = -(-rows // MOST_ROWS)
        assert counted["viewer_degree"] == 1
        assert counted["walk"] == counted["scores"] == len(range(0, rows, step)) <= MOST_ROWS


def test_a_window_ends_and_what_was_long_ago_is_forgotten() -> None:
    watched, registry = counting(Known(), drift_window=200)
    see(watched, 200, shift=3.0)
    assert psi(registry, "walk") > 1  # type: ignore[operator]
    see(watched, 201)
    assert psi(registry, "walk") == 0


def test_nothing_is_told_of_few_requests() -> None:
    watched, registry = counting(Known())
    see(watched, LEAST - 1, shift=3.0)
    assert psi(registry) is None
    see(watched, 1)
    assert psi(registry) is not None


def test_a_model_without_a_reference_is_asked_for_once_and_not_told_of() -> None:
    known = Known(None)
    watched, registry = counting(known)
    see(watched, LEAST + 1)
    assert (psi(registry), known.reads) == (None, 1)


def test_a_reference_that_cannot_be_read_is_tried_again_after_a_minute() -> None:
    known, now = Known(), [0.0]
    known.failures = [StoreError("away")]
    watched, registry = counting(known, clock=lambda: now[0])
    see(watched, 3)
    assert known.reads == 1
    now[0] = drift.RETRY_S
    see(watched, LEAST)
    assert (psi(registry), known.reads) == (0, 2)


def test_another_ranker_of_the_release_is_counted_anew() -> None:
    known = Known()
    watched, registry = counting(known)
    for version, shift in (("one", 3.0), ("two", 0.0)):
        known.versions[RELEASE] = ModelRef(name=NIGHTLY, version=version)
        see(watched, LEAST, shift, RELEASE)
    assert psi(registry, "walk", RELEASE) == 0
    assert known.reads == 2


def test_models_that_are_counted_are_so_many_and_who_is_asked_no_more_gives_its_place() -> None:
    known, now = Known(), [0.0]
    watched, registry = counting(known, clock=lambda: now[0])
    see(watched, LEAST, shift=3.0, model="small@0")
    for number in range(MOST_MODELS + 5):
        see(watched, 1, model=f"small@{number}")
    assert known.reads == MOST_MODELS
    now[0] = IDLE_S
    see(watched, 1, model="small@1")
    assert psi(registry, "walk", "small@0") > 1  # type: ignore[operator]
    see(watched, LEAST, model="small@new")
    assert (psi(registry, "walk", "small@0"), psi(registry, model="small@new")) == (0, 0)
    see(watched, 1, model="small@1")
    assert known.reads == MOST_MODELS + 1, "it was asked a moment ago"


def test_models_without_a_reference_take_nobodys_place() -> None:
    known = Known(None)
    watched, registry = counting(known)
    for number in range(MOST_MODELS + 5):
        see(watched, 2, model=f"small@{number}")
    assert known.reads == MOST_MODELS + 5
    known.found = REFERENCE
    see(watched, LEAST, model="small@new")
    assert psi(registry, model="small@new") == 0


class Given:
    """A model as the root asks it."""

    name = "small@1"

    def given(self, gathered: Any) -> Any:
        return gathered


def ask(watched: Drift) -> None:
    watched.saw(Given(), columns(np.random.default_rng(1)), np.zeros(ROWS, np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize(("every", "drawn", "chosen"), [(1, 0.99, 1), (10, 0.099, 1), (10, 0.11, 0), (0, 0.0, 0)])
def test_one_in_so_many_requests_is_counted(every: int, drawn: float, chosen: int) -> None:
    counts = RootMetrics(CollectorRegistry())
    watched = Drift(ModelSettings(drift_every=every), counts, Known(), draw=lambda: drawn)  # type: ignore[arg-type]
    ask(watched)
    assert watched._waiting.qsize() == chosen
    watched.start()
    assert (counts.saw is not None) == bool(every)
    watched.stop()


def test_a_thread_that_is_behind_costs_no_memory() -> None:
    watched, _ = counting(Known())
    for _ in range(MOST_WAITING + 10):
        ask(watched)
    assert watched._waiting.qsize() == MOST_WAITING


def test_what_a_count_dies_of_does_not_end_the_thread() -> None:
    known = Known()
    known.failures = [RuntimeError("unforeseen")]
    watched, registry = counting(known)
    for sample in (*samples(LEAST + 1), None):
        watched._waiting.put(sample)
    watched.start()
    watched._thread.join()
    assert psi(registry) == 0


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"), create=True)


def pushed(store: ObjectStore, folder: Path, told: Reference | None = REFERENCE) -> ModelRef:
    made = any_folder(folder)
    if told is not None:
        (made / FILE).write_bytes(told.to_json())
    Registry(store).push(made, lambda *_: {}, NOW, "a")
    return ModelRef(name="small", version="1")


def test_references_are_read_of_the_registry(store: ObjectStore, tmp_path: Path) -> None:
    found = References(store.uri, lambda: nullcontext(None))
    ref = pushed(store, tmp_path / "1")
    assert found.version("small@1") == ref
    assert found.read(ref) == REFERENCE
    with pytest.raises(NotFound, match="no release"):
        found.version(RELEASE)
    with pytest.raises(NotFound):
        found.read(ModelRef(name="small", version="2"))


def test_a_version_without_one_has_none(store: ObjectStore, tmp_path: Path) -> None:
    assert References(store.uri, lambda: nullcontext(None)).read(pushed(store, tmp_path / "1", None)) is None
