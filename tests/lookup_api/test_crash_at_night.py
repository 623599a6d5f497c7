"""A model whose native code crashes on what a night brings, and passed every check when it was pushed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import xgboost as xgb
from onnx import TensorProto, helper

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
from tests.jobs.test_process_tree import runs
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.lookup_api.test_routed_models import push, route
from tests.lookup_api.test_variant_lists import KINDS
from tests.suites.command import pymk
from tests.suites.live_store import LIVE_SETTINGS, guarded_graph, live_artifacts, publish_live
from tests.suites.model_folders import small_spec, write_folder

FAR = 2**29
"""A column far outside of every row."""
NO_FRIENDS = np.zeros(50, np.float32)


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
    """One tree, in which whoever has a friend comes to a split on a column that is not there."""
    degrees = np.repeat(np.float32([0, 1, 2]), 50)
    booster = xgb.train({"max_depth": 2, "nthread": 1}, xgb.DMatrix(degrees[:, None], degrees), 1)
    weights = json.loads(booster.save_raw("json"))
    [tree] = weights["learner"]["gradient_booster"]["model"]["trees"]
    tree["split_indices"][tree["right_children"][0]] = FAR
    scores = booster.inplace_predict(NO_FRIENDS[:, None])
    return pushed(
        store,
        tmp_path / "crasher",
        "xgboost",
        lambda path: (path / "model.json").write_text(json.dumps(weights)),
        scores,
    )


@pytest.fixture
def hanger(store: ObjectStore, tmp_path: Path) -> ModelRef:
    """A loop without an end for whoever has a friend."""
    turn = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, ["n"]),
    ]
    after = [
        helper.make_tensor_value_info("on_after", TensorProto.BOOL, []),
        helper.make_tensor_value_info("kept_after", TensorProto.FLOAT, ["n"]),
    ]
    same = [helper.make_node("Identity", [name], [f"{name}_after"]) for name in ("on", "kept")]
    nodes = [
        helper.make_node("ReduceMax", ["viewer_degree"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "much"], ["turns"]),
        helper.make_node("Cast", ["turns"], ["whole"], to=TensorProto.INT64),
        helper.make_node(
            "Loop", ["whole", "", "viewer_degree"], ["score"], body=helper.make_graph(same, "b", turn, after)
        ),
    ]
    weights = onnx_weights([("viewer_degree", TensorProto.FLOAT, ["n"])], nodes, much=np.float32(1e15))
    return pushed(store, tmp_path / "hanger", "onnx", weights, NO_FRIENDS)


def pushed(
    store: ObjectStore, folder: Path, kind: str, weights: Callable[[Path], object], scores: npt.NDArray[np.float32]
) -> ModelRef:
    """Passes every check, as its golden rows are people without friends."""
    spec = small_spec(name=folder.name, kind=kind, inputs=(InputSpec(name="viewer_degree"),))
    write_folder(folder, spec, lambda path: weights(path) and None, Golden({"viewer_degree": NO_FRIENDS}, scores))
    Registry(store).push(folder, check_model, NOW, "a")
    return ModelRef(name=spec.name, version="1")


def maker() -> psutil.Process:
    """The process that makes lists below this one."""
    python = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    [tree] = [one for one in python if "jobs.process_tree" in one.cmdline()]
    [process] = tree.children()
    return process


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
    store: ObjectStore, night: Release, hanger: ModelRef
) -> None:
    canary = Canary(model=hanger, share=0.3)
    route(store, canary=canary)
    with pytest.raises(PymkError, match="their process ended with exit code 137"):
        make_all(store, night, LOOKUP, lambda line: maker().kill())
    surface = RouteStore(store).read().of(LOOKUP)
    assert (surface.route.canary, surface.stopped) == (canary, ())


def test_where_nobody_can_be_told_the_process_is_ended_even_if_its_model_hangs(
    store: ObjectStore, night: Release, hanger: ModelRef
) -> None:
    started: list[psutil.Process] = []

    def full(line: str) -> None:
        started.append(maker())
        raise OSError("the disk is full")

    route(store, stable=hanger)
    with pytest.raises(OSError, match="the disk is full"):
        make_all(store, night, LOOKUP, full)
    [process] = started
    assert not runs(process.pid)
    assert list(variants_of(store, night.release_id)) == []


def test_an_interrupt_ends_the_command_and_what_it_started(
    store: ObjectStore, night: Release, hanger: ModelRef
) -> None:
    """As Ctrl-C at a terminal, which asks every process of its group to end."""
    route(store, stable=hanger)
    command = [sys.executable, "-m", "jobs.cli", "model", "rank", "--store", store.uri]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as told:
        assert told.stderr is not None
        while "ranking lists" not in told.stderr.readline():
            assert told.poll() is None
        [tree] = psutil.Process(told.pid).children()
        [process] = tree.children()
        os.killpg(told.pid, signal.SIGINT)
    assert told.returncode != 0
    while runs(tree.pid) or runs(process.pid):  # the suite's timeout ends it otherwise
        time.sleep(0.05)


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
