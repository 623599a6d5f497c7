"""What a name means is looked up in the store, and followed there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import NotFound, StoreError, UsageError
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore, routed
from infra.model_spec import InputSpec
from infra.store import ObjectStore, open_store
from lookup_api.root.catalog import Catalog
from tests.suites.leaf_models import push, trees

USER = 1


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = open_store(str(tmp_path / "store"), create=True)
    push(store, "1")
    return store


@pytest.fixture
def catalog(store: ObjectStore) -> Iterator[Catalog]:
    made = Catalog(store.uri, 3600)
    yield made
    made.stop()


def route(store: ObjectStore, surface: str, **parts: object) -> None:
    RouteStore(store).change(surface, routed(Route.model_validate(parts)), "2026-01-01T00:00:00Z", "a")


def test_a_model_without_a_version_is_the_one_pushed_last(store: ObjectStore, catalog: Catalog) -> None:
    assert catalog.named("small", USER).model == "small@1"
    push(store, "2", name="other")
    assert catalog.named("other", USER).model == "other@2"
    push(store, "3")
    assert catalog.named("small", USER).model == "small@1"
    catalog.look()
    assert catalog.named("small", USER).model == "small@3"
    assert catalog.named("small@1", USER).model == "small@1"


def test_a_surface_is_its_route_as_of_the_last_look(store: ObjectStore, catalog: Catalog) -> None:
    assert (catalog.named(LOOKUP, USER).model, catalog.named("release", USER).model) == ("release", "release")
    with pytest.raises(NotFound, match="home"):
        catalog.named("home", USER)
    one, two = ModelRef(name="small", version="1"), push(store, "2")
    route(store, "home", stable=one, canary=Canary(model=two, share=0.5))
    catalog.look()
    wanted = RouteStore(store).read().of("home").route
    for user in range(20):
        found = catalog.named("home", user)
        assert (found.asked, found.ref) == ("home", wanted.of(wanted.variant("home", user)))


@pytest.mark.parametrize("name", ["a b", "small@", "@1", "small@a@b", "", "../small", "none@1", "none"])
def test_a_name_of_nothing_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises((NotFound, UsageError)):
        catalog.named(name, USER)


def test_a_model_of_lists_is_refused(store: ObjectStore, catalog: Catalog) -> None:
    push(store, "9", trees(9), unit="list")
    push(store, "10", trees(10, 2), inputs=(InputSpec(name="walk", width=2),))
    for version in ("9", "10"):
        with pytest.raises(UsageError, match="scores lists, or takes columns that are wide"):
            catalog.named(f"small@{version}", USER)


def test_what_was_known_holds_while_the_store_is_away(
    store: ObjectStore, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert catalog.named("small", USER).model == "small@1"

    def away(self: RouteStore) -> None:
        raise StoreError("away")

    monkeypatch.setattr(RouteStore, "stored", away)
    with pytest.raises(StoreError):
        catalog.look()
    assert catalog.named("small", USER).model == "small@1"
    assert catalog.named(LOOKUP, USER).model == "release"
