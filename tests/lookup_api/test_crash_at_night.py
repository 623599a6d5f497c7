"""A model whose native code crashes on what a night brings, and passed every check when it was pushed."""

import json
from pathlib import Path

import numpy as np
import psutil
import pytest
import xgboost as xgb

from infra.errors import ExitCode, PymkError
from infra.model_golden import Golden
from infra.model_routes import LOOKUP, Canary, ModelRef, RouteStore
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.releases import Release, ReleaseStore
from infra.store import ObjectStore, open_store
from infra.variants import variants_of
from jobs.context import Parent
from jobs.variant_lists import make_all, rank_variants
from lookup_api.ranking.model_check import check_model
from tests.infra.test_models import NOW
from tests.lookup_api.test_routed_models import push, route
from tests.lookup_api.test_variant_lists import KINDS
from tests.suites.command import pymk
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.model_folders import small_spec, write_folder

FAR = 2**29
"""A column far outside of every row."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parent]:
    return live_artifacts(tmp_path_factory.mktemp("night"), guarded_graph())


@pytest.fixture
def store(made: dict[str, Parent], tmp_path: Path) -> ObjectStore:
    opened = open_store(str(tmp_path / "store"), create=True)
    publish_live(opened, made, kinds=KINDS, settings=LIVE_SETTINGS)
    return opened


@pytest.fixture
def night(store: ObjectStore) -> Release:
    return ReleaseStore(store).list()[0]


@pytest.fixture
def crasher(store: ObjectStore, tmp_path: Path) -> ModelRef:
    """One tree, in which whoever has a friend comes to a split on a column that is not there; its golden rows have
    none."""
    degrees = np.repeat(np.float32([0, 1, 2]), 50)
    booster = xgb.train({"max_depth": 2, "nthread": 1}, xgb.DMatrix(degrees[:, None], degrees), 1)
    lonely = Golden({"viewer_degree": degrees[:50]}, booster.inplace_predict(degrees[:50, None]))
    weights = json.loads(booster.save_raw("json"))
    [tree] = weights["learner"]["gradient_booster"]["model"]["trees"]
    tree["split_indices"][tree["right_children"][0]] = FAR
    spec = small_spec(name="crasher", inputs=(InputSpec(name="viewer_degree"),))
    folder = write_folder(
        tmp_path / "crasher", spec, lambda path: (path / "model.json").write_text(json.dumps(weights)), lonely
    )
    Registry(store).push(folder, check_model, NOW, "a")
    return ModelRef(name=spec.name, version="1")


def process_trees() -> list[psutil.Process]:
    """Below this process, with the one that makes lists in each."""
    return [one for one in psutil.Process().children() if "jobs.process_tree" in one.cmdline()]


def test_a_canary_that_crashes_at_night_is_taken_off_and_the_night_goes_on(
    store: ObjectStore, night: Release, crasher: ModelRef, tmp_path: Path
) -> None:
    sound, lines = push(store, tmp_path / "sound", "1", 1), []
    route(store, stable=sound, canary=Canary(model=crasher, share=0.3))
    rank_variants(store, night, lines.append)
    assert [one.model for one in variants_of(store, night.release_id)] == [str(sound)]
    surface = RouteStore(store).read().of(LOOKUP)
    assert (surface.route.stable, surface.route.canary) == (sound, None)
    [stopped] = surface.stopped
    assert stopped.model == crasher
    assert stopped.why == f"lists of {night.release_id}: its process was ended by SIGSEGV"
    assert lines[-1].startswith(f"warning: {crasher} made no lists: canary {crasher} of {LOOKUP} is taken off")
    again: list[str] = []
    rank_variants(store, night, again.append)
    assert again == []


def test_a_process_that_is_killed_from_outside_is_held_against_nobody(
    store: ObjectStore, night: Release, tmp_path: Path
) -> None:
    canary, lines = Canary(model=push(store, tmp_path / "sound", "1", 1), share=0.3), []
    route(store, canary=canary)

    def kill(line: str) -> None:
        lines.append(line)
        [tree] = process_trees()
        [process] = tree.children()
        process.kill()

    with pytest.raises(PymkError, match="their process ended with exit code 137"):
        make_all(store, night, LOOKUP, kill)
    assert "ranking lists" in lines[0]
    surface = RouteStore(store).read().of(LOOKUP)
    assert (surface.route.canary, surface.stopped) == (canary, ())


def test_where_nobody_can_be_told_the_process_is_ended_and_leaves_nothing(
    store: ObjectStore, night: Release, tmp_path: Path
) -> None:
    def full(line: str) -> None:
        raise OSError("the disk is full")

    route(store, stable=push(store, tmp_path / "sound", "1", 1))
    with pytest.raises(OSError, match="the disk is full"):
        make_all(store, night, LOOKUP, full)
    assert process_trees() == []
    assert list(variants_of(store, night.release_id)) == []


def test_the_command_takes_a_canary_that_crashes_off(store: ObjectStore, night: Release, crasher: ModelRef) -> None:
    route(store, canary=Canary(model=crasher, share=0.3))
    told = pymk("model", "rank", "--store", store.uri)
    assert told.returncode == ExitCode.GATE_REFUSED
    assert f"canary {crasher} of {LOOKUP} is taken off" in " ".join(told.stderr.split())
    assert RouteStore(store).read().of(LOOKUP).route.canary is None


def test_a_stable_model_that_crashes_at_night_is_told_of_and_not_stopped(
    store: ObjectStore, night: Release, crasher: ModelRef
) -> None:
    lines: list[str] = []
    route(store, stable=crasher)
    rank_variants(store, night, lines.append)
    assert lines[-1] == f"warning: {crasher} made no lists: its process was ended by SIGSEGV"
    assert list(variants_of(store, night.release_id)) == []
    surface = RouteStore(store).read().of(LOOKUP)
    assert (surface.route.stable, surface.stopped) == (crasher, ())
