"""Two towers by setting: they tell of viewers without friends alone, and the newcomers' model weighs what they tell."""

import json

import numpy as np
import pytest

from gnn import two_tower
from infra.graph import Graph
from infra.settings import NewcomerSettings
from jobs.blocks import parts_of
from jobs.context import Parent
from jobs.newcomer_towers import COLUMN, TOWERS, tell
from jobs.scoring import Pairs
from lookup_api.ranking.features import PAIR_FEATURES
from lookup_api.ranking.newcomers import DEFAULTS, FILE
from tests.lookup_api.ranking.networks import small_graph, without_friends_of
from tests.suites.small_release import SETTINGS, small_release

Made = dict[str, Parent]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return without_friends_of(small_graph(600), [0, 45, 170])


@pytest.fixture(scope="module")
def both(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made]:
    """The release with the logit alone, and with towers beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_tower, "BATCH", 128)
        patch.setattr(two_tower, "EPOCHS", 5)
        settings = SETTINGS.model_copy(update={"newcomers": NewcomerSettings(kind="two_tower")})
        folder = tmp_path_factory.mktemp("towers")
        return small_release(folder / "logit", graph), small_release(folder / "towers", graph, settings)


def pairs_of(made: Made) -> Pairs:
    parts = [Pairs.read(path) for path in parts_of(made["features"].path / "now")]
    return Pairs(*(np.concatenate([getattr(p, name) for p in parts]) for name in Pairs.__dataclass_fields__))


def test_towers_tell_of_viewers_without_friends_and_change_nothing_else(graph: Graph, both: tuple[Made, Made]) -> None:
    before, after = map(pairs_of, both)
    alone = graph.now.connections.degrees()[after.user] == 0
    viewers, shown = np.load(both[1]["features"].path / "now" / TOWERS)
    expected = (viewers[after.user[alone]].astype(np.float64) * shown[after.candidate[alone]]).sum(axis=1)
    assert alone.sum() > 100
    np.testing.assert_allclose(after.features[alone, COLUMN], expected, atol=2e-3, rtol=1e-3)
    np.testing.assert_array_equal(before.candidate, after.candidate)
    np.testing.assert_array_equal(before.features[~alone], after.features[~alone])
    others = np.arange(len(PAIR_FEATURES)) != COLUMN
    np.testing.assert_array_equal(before.features[:, others], after.features[:, others])
    assert not before.features[alone, COLUMN].any()
    assert not (both[1]["features"].path / "past" / TOWERS).exists()


def test_the_newcomers_model_learns_what_the_towers_are_worth(both: tuple[Made, Made]) -> None:
    logit, towers = (json.loads((made["ranker"].path / FILE).read_text())["weights"] for made in both)
    assert logit["factors"] == pytest.approx(DEFAULTS["factors"])
    assert towers["factors"] != pytest.approx(DEFAULTS["factors"], abs=1e-3)
    assert both[0]["ranker"].content_hash != both[1]["ranker"].content_hash
    assert both[1]["features"].manifest["metrics"]["towers"]["best_epoch"] > 0


def test_pairs_in_any_cut_are_told_the_same(
    graph: Graph, both: tuple[Made, Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = np.load(both[1]["features"].path / "now" / TOWERS)
    pairs = pairs_of(both[1])
    again = np.zeros_like(pairs.features)
    monkeypatch.setattr("jobs.newcomer_towers.CHUNK", 7)
    tell(again, pairs.user, pairs.candidate, graph.now.connections, towers)
    alone = graph.now.connections.degrees()[pairs.user] == 0
    np.testing.assert_array_equal(again[alone, COLUMN], pairs.features[alone, COLUMN])
    assert not again[~alone].any()
