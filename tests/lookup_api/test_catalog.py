"""What a name means is looked up in the store, and followed there."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from infra.artifacts import MANIFEST
from infra.errors import NotFound, StoreError, UsageError
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.models import ModelVersion, Registry
from infra.store import ObjectStore, open_store
from infra.store_folder import FolderStore
from lookup_api.canary_guard import Bounds
from lookup_api.deadline import Deadline, TooLate
from lookup_api.root import store_reads
from lookup_api.root.canaries import Canaries
from lookup_api.root.catalog import Catalog, Named
from tests.suites.leaf_models import push, trees

USER = 1


def soon() -> Deadline:
    """Long enough for a store that answers, on a busy machine too."""
    return Deadline.after(60)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = open_store(str(tmp_path / "store"), create=True)
    push(store, "1")
    return store


def catalog_of(store: ObjectStore, poll_s: float) -> Catalog:
    stopped = Counter("stopped", "", ["model"], registry=CollectorRegistry())
    return Catalog(store.uri, poll_s, Canaries(store.uri, Bounds(), stopped))


@pytest.fixture
def catalog(store: ObjectStore) -> Iterator[Catalog]:
    made = catalog_of(store, 3600)
    yield made
    made.stop()


def route(store: ObjectStore, surface: str, **parts: object) -> None:
    RouteStore(store).change(surface, routed(Route.model_validate(parts)), "2026-01-01T00:00:00Z", "a")


def test_a_model_without_a_version_is_the_one_pushed_last(store: ObjectStore, catalog: Catalog) -> None:
    assert catalog.named("small", USER, soon()).model == "small@1"
    push(store, "2", name="other")
    assert catalog.named("other", USER, soon()).model == "other@2"
    push(store, "3")
    assert catalog.named("small", USER, soon()).model == "small@1"
    catalog.look()
    assert catalog.named("small", USER, soon()).model == "small@3"
    assert catalog.named("small@1", USER, soon()).model == "small@1"


def test_looks_read_what_is_new_and_nothing_twice(
    store: ObjectStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of many versions that counts what is asked of it."""
    one = Registry(store).get("small", "1")
    for at in range(20):
        version = replace(one, version=f"v{at}")
        store.put(f"{version.prefix}/{MANIFEST}", version.to_json())
    route(store, "home", stable=ModelRef(name="small", version="1"))
    reads: list[str] = []

    def counted(read: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, key: (reads.append(key), read(self, key))[1]

    for method in ("get", "folders", "list", "exists", "open_local"):
        monkeypatch.setattr(FolderStore, method, counted(getattr(FolderStore, method)))

    def read_by(name: str | None = None) -> list[str]:
        reads.clear()
        catalog.named(name, USER, soon()) if name else catalog.look()
        return sorted(reads)

    folder, routes, manifest = "models/small/", "routes.json", "models/small/{}/manifest.json".format
    read_by("home")
    assert (read_by("home"), read_by("small@1"), read_by()) == ([], [], [routes])
    every = [folder, *sorted(manifest(v) for v in ("1", *(f"v{at}" for at in range(20))))]
    assert read_by("small") == sorted([*every, manifest("v9")]), "what the chosen one takes, too"
    look = [folder, manifest("v9"), routes]
    assert (read_by(), read_by("small"), read_by()) == (look, [], look), "the newest alone, as it may be gone"
    assert (read_by(), read_by("small")) == ([routes], look[:2]), "known, though nobody asked for a while"
    push(store, "2")
    assert read_by() == [folder, manifest("2"), manifest("v9"), routes]
    store.delete(manifest("v9"))  # its removal died there
    catalog.named("small", USER, soon())
    assert read_by() == [folder, manifest("v8"), manifest("v9"), routes]
    assert catalog.named("small", USER, soon()).model == "small@v8"


def test_a_surface_is_its_route_as_of_the_last_look(store: ObjectStore, catalog: Catalog) -> None:
    assert (catalog.named(LOOKUP, USER, soon()).model, catalog.named("release", USER, soon()).model) == (
        "release",
        "release",
    )
    with pytest.raises(NotFound, match="home"):
        catalog.named("home", USER, soon())
    one, two = ModelRef(name="small", version="1"), push(store, "2")
    route(store, "home", stable=one, canary=Canary(model=two, share=0.5))
    catalog.look()
    wanted = RouteStore(store).read().of("home").route
    for user in range(20):
        found = catalog.named("home", user, soon())
        assert (found.asked, found.ref) == ("home", wanted.of(wanted.variant("home", user)))


@pytest.mark.parametrize("name", ["a b", "small@", "@1", "small@a@b", "", "../small", "none@1", "none"])
def test_a_name_of_nothing_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises((NotFound, UsageError)):
        catalog.named(name, USER, soon())


def test_a_model_with_inputs_that_nobody_has_is_refused(store: ObjectStore, catalog: Catalog) -> None:
    push(store, "9", trees(9, 1), inputs=(InputSpec(name="score"),), output="worth")
    push(store, "10", trees(10, 2), inputs=(InputSpec(name="walk", width=2),))
    with pytest.raises(UsageError, match="'score': is in no feature table"):
        catalog.named("small@9", USER, soon())
    with pytest.raises(UsageError, match="takes walk as 2 columns, which is one"):
        catalog.named("small@10", USER, soon())


def test_a_model_of_lists_takes_the_scores_of_who_ranks_the_lookups_lists(store: ObjectStore, catalog: Catalog) -> None:
    push(store, "11", trees(11, 1), name="lists", unit="list", inputs=(InputSpec(name="score"),), output="worth")
    push(store, "12", trees(12), name="lists", unit="list")
    assert catalog.named("lists@11", USER, soon()).ranker == Named(LOOKUP)
    assert catalog.named("lists@12", USER, soon()).ranker is None, "it names no score"
    two = push(store, "2")
    route(store, LOOKUP, stable=ModelRef(name="small", version="1"), canary=Canary(model=two, share=0.5))
    catalog.look()
    for user in range(20):
        ranker = catalog.named("lists@11", user, soon()).ranker
        assert ranker is not None
        assert ranker.model == catalog.named(LOOKUP, user, soon()).model
    route(store, LOOKUP, stable=ModelRef(name="lists", version="12"))
    catalog.look()
    with pytest.raises(UsageError, match="lists@12: scores lists, so it ranks no recommendations"):
        catalog.named("lists@11", USER, soon())


def test_what_was_known_holds_while_the_store_is_away(
    store: ObjectStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog.named("small", USER, soon()).model == "small@1"

    def away(self: RouteStore) -> None:
        raise StoreError("away")

    monkeypatch.setattr(RouteStore, "stored", away)
    with pytest.raises(StoreError):
        catalog.look()
    assert catalog.named("small", USER, soon()).model == "small@1"
    assert catalog.named(LOOKUP, USER, soon()).model == "release"


def test_whatever_a_look_dies_of_the_next_one_is_made(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog, look, looks, again = catalog_of(store, 0.001), Catalog.look, itertools.count(), threading.Event()

    def dying(self: Catalog) -> None:
        match next(looks):
            case 0:
                look(self)
            case 1:
                raise RuntimeError("unforeseen")
            case _:
                again.set()

    monkeypatch.setattr(Catalog, "look", dying)
    assert catalog.named("small", USER, soon()).model == "small@1"
    assert again.wait(60)
    catalog.stop()


def test_a_store_that_hangs_holds_no_request_beyond_its_deadline_and_later_ones_not_at_all(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, going_on, stored = threading.Event(), threading.Event(), RouteStore.stored

    def hung(self: RouteStore) -> object:
        begun.set()
        going_on.wait()
        return stored(self)

    monkeypatch.setattr(RouteStore, "stored", hung)
    with pytest.raises(TooLate):
        catalog.named("small", USER, Deadline.after(0.01))
    assert begun.wait(60)
    monkeypatch.setattr(store_reads, "PATIENCE_S", 0.0)
    for name in ("small", "other", "small@1"):
        with pytest.raises(StoreError, match="does not answer"):
            catalog.named(name, USER, Deadline.after(3600))
    assert catalog.named("release", USER, soon()).model == "release"
    monkeypatch.undo()
    monkeypatch.setattr(store_reads, "PATIENCE_S", 3600.0)
    going_on.set()
    assert catalog.named("small", USER, soon()).model == "small@1"


def test_what_the_store_does_not_have_is_not_looked_for_again_at_once(
    store: ObjectStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    pushed, get = Registry.pushed, Registry.get

    def of_name(self: Registry, name: str, known: dict[str, str]) -> dict[str, str]:
        looked.append(name)
        return pushed(self, name, known)

    def of_version(self: Registry, name: str, version: str) -> ModelVersion:
        looked.append(f"{name}@{version}")
        return get(self, name, version)

    monkeypatch.setattr(Registry, "pushed", of_name)
    monkeypatch.setattr(Registry, "get", of_version)
    for _ in range(3):
        for name in ("none", "none@1"):
            with pytest.raises(NotFound):
                catalog.named(name, USER, soon())
    assert looked == ["none", "none@1"]


def test_a_store_that_is_away_is_asked_again_after_a_while(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: RouteStore) -> None:
        raise StoreError("away")

    monkeypatch.setattr(store_reads, "FAILED_S", 0.0)
    with monkeypatch.context() as changed:
        changed.setattr(RouteStore, "stored", away)
        with pytest.raises(StoreError, match="away"):
            catalog.named("small", USER, soon())
    assert catalog.named("small", USER, soon()).model == "small@1"


def test_no_more_waits_for_a_store_than_is_worth_waiting_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()
    monkeypatch.setattr(Registry, "get", lambda self, name, version: going_on.wait())
    monkeypatch.setattr(store_reads, "MOST_WAITING", 2)
    monkeypatch.setattr(store_reads, "PATIENCE_S", 3600.0)
    for name in ("a@1", "b@1"):
        with pytest.raises(TooLate):
            catalog.named(name, USER, Deadline.after(0))
    with pytest.raises(StoreError, match="too much else"):
        catalog.named("c@1", USER, soon())
    going_on.set()
