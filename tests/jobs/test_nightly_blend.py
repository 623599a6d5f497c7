"""A night that blends pushes how: a model of lists that puts people in the order in which the night shows them."""

from pathlib import Path

import numpy as np
import pytest

from gnn.blend.lists import BLENDS, WINDOW, blend_lists
from infra.graph import Csr, Graph
from infra.models import Registry
from infra.releases import Release
from infra.store import ObjectStore, open_store
from jobs import nightly_blend
from jobs.context import Parent
from jobs.nightly_blend import EXPORTED, NAME, push_nightly_blend
from jobs.nightly_model import clean_nightly, try_push
from lookup_api.ranking.scorers import open_scorer
from tests.suites.list_models import list_columns
from tests.suites.live_store import LIVE_SETTINGS, SERVED, guarded_graph, live_artifacts, publish_live

KINDS = (*SERVED, "features", "rankings", "embeddings")
DIVERSITY = 0.3


@pytest.fixture(scope="module")
def graph() -> Graph:
    return guarded_graph()


@pytest.fixture(scope="module")
def made(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    return live_artifacts(tmp_path_factory.mktemp("night"), graph)


def release_of(store: ObjectStore, made: dict[str, Parent], blend: str) -> Release:
    rank = LIVE_SETTINGS.rank.model_copy(update={"blend": blend, "diversity": DIVERSITY})
    return publish_live(store, made, kinds=KINDS, settings=LIVE_SETTINGS.model_copy(update={"rank": rank}))


@pytest.mark.parametrize("blend", EXPORTED)
def test_its_order_is_that_of_the_night(blend: str, made: dict[str, Parent], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    pushed = push_nightly_blend(store, release_of(store, made, blend))
    assert pushed is not None
    model, folder = Registry(store).open(NAME, pushed.version)
    dimensions = {one.name: one.width for one in model.spec.inputs}["embedding"]
    scorer = open_scorer(folder, model.spec)
    for people in (1, 7, 40):
        columns = list_columns(dimensions, people, seed=people)
        adjusted = columns["score"] - columns["price"]
        best_first = np.argsort(-adjusted, kind="stable")
        columns = {name: column[best_first] for name, column in columns.items()}
        groups = np.full((people, nightly_blend.GROUPS), -1, np.int64)
        groups[:, :3] = columns["attributes"]
        scores = scorer.score(columns | {"attributes": groups})
        owners, taken = np.nonzero(groups >= 0)
        rows = Csr.from_pairs(people, owners, groups[owners, taken])
        user, candidate = np.zeros(people, np.int32), np.arange(people, dtype=np.int32)
        wanted = blend_lists(blend, DIVERSITY, user, candidate, adjusted[best_first], columns["embedding"], rows)
        assert np.argsort(-scores, kind="stable").tolist() == wanted.tolist()


def test_it_is_pushed_once_and_goes_with_its_rankings(made: dict[str, Parent], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    release, told = release_of(store, made, "ssd"), list[str]()
    for _ in range(2):
        try_push(store, release, 0, told.append)
    assert [line.split("@")[0] for line in told] == ["model nightly", f"model {NAME}"] * 2
    assert clean_nightly(store) == [], "its artifact is there"
    version = release.artifacts["rankings"].artifact_id
    store.delete_folder(f"rankings/{version}/")
    assert clean_nightly(store) == [f"{NAME}@{version}"]


def test_a_blend_that_cannot_be_exported_is_told_and_the_night_goes_on(
    made: dict[str, Parent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("gnn.blend.list_export.export_list", broken)
    store = open_store(str(tmp_path / "store"), create=True)
    told = list[str]()
    try_push(store, release_of(store, made, "spacing"), 0, told.append)
    assert told[1] == "warning: the blend could not be pushed as a model: no such operator"


@pytest.mark.parametrize("blend", ["none", *sorted(BLENDS.keys() - EXPORTED)])
def test_other_nights_push_none(blend: str, made: dict[str, Parent], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    assert push_nightly_blend(store, release_of(store, made, blend)) is None


def test_the_window_is_the_nights() -> None:
    assert nightly_blend.WINDOW == WINDOW
