"""A leaf process scores on a GPU where there is one, says on what it does, and refuses what it cannot do."""

import logging
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest
import xgboost as xgb
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from prometheus_client import CollectorRegistry

from infra.errors import PymkError
from infra.serving_settings import LeafSettings
from infra.settings import load
from infra.store import open_store
from lookup_api.leaves import devices, residents
from lookup_api.leaves.devices import LIBRARIES, WITHOUT, devices_of
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.leaf_server import LeafServer, serve_leaf
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.ranking.scorers import Scorer, open_scorer
from tests.lookup_api.ranking.test_scorers import MODELS, every_model
from tests.suites.leaf_models import breaker, leaf_of, push, soon
from tests.suites.model_folders import columns_of, small_spec, write_folder

on_cpu_builds = pytest.mark.skipif(
    xgb.build_info()["USE_CUDA"] or "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="the libraries are built for GPUs",
)

takes_the_cpu = pytest.mark.filterwarnings("ignore:.*(available provider|available GPU)")


def lack(monkeypatch: pytest.MonkeyPatch, **why: str) -> None:
    """What the library of each kind is to say; empty where it has a GPU."""
    monkeypatch.setattr(devices, "lack", why.__getitem__)


@pytest.mark.parametrize(
    ("wanted", "xgboost", "onnx", "found"),
    [
        ("auto", "", "", ("cuda", "cuda")),
        ("auto", "none", "", ("cpu", "cuda")),
        ("auto", "none", "none", ("cpu", "cpu")),
        ("cpu", "", "", ("cpu", "cpu")),
        ("cuda", "", "", ("cuda", "cuda")),
    ],
)
def test_a_kind_scores_on_a_gpu_where_its_library_has_one(
    wanted: str, xgboost: str, onnx: str, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lack(monkeypatch, xgboost=xgboost, onnx=onnx)
    assert devices_of(wanted) == {"ranker": "cpu", "xgboost": found[0], "onnx": found[1]}


def test_auto_tells_why_a_gpu_is_not_taken_unless_the_library_takes_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lack(monkeypatch, xgboost="driver too old", onnx=WITHOUT)
    assert devices_of("auto") == {"ranker": "cpu", "xgboost": "cpu", "onnx": "cpu"}
    assert caplog.messages == ["xgboost models find no GPU (driver too old): they score on the CPU"]
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("code", "within_s", "why"),
    [
        ("import sys; sys.exit(sys.argv[1] != 'onnx')", 60, ""),
        ("import sys; sys.exit('noise' + chr(10) + 'driver too old')", 60, "driver too old"),
        ("import os; os.kill(os.getpid(), 9)", 60, "the process that asked was ended by SIGKILL"),
        ("import time; time.sleep(600)", 0.01, "no answer within 0.01 s"),
    ],
)
def test_a_library_for_cuda_is_asked_by_a_process_that_may_die_or_hang(
    code: str, within_s: float, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "PROBE", (sys.executable, "-c", code))
    monkeypatch.setattr(devices, "PROBE_S", within_s)
    assert devices._probed("onnx") == why


def test_a_leaf_that_is_to_score_on_a_gpu_and_has_none_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, xgboost="", onnx="driver too old")
    settings = load(None, {"leaves.device": "cuda"}, {})[0]
    with pytest.raises(PymkError, match=r"device: cuda, but onnx models find no GPU \(driver too old\)") as refused:
        serve_leaf("nowhere", settings, "127.0.0.1", 0, None)
    assert "Set leaves.device to auto or cpu" in refused.value.fix


@on_cpu_builds
@takes_the_cpu
def test_libraries_without_a_gpu_say_so_be_they_built_for_one_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(devices, "PROBE", ())
        assert [devices.lack(kind) for kind in LIBRARIES] == [WITHOUT, WITHOUT], "and no process is started"
    monkeypatch.setattr(onnxruntime, "cuda_version", "12.8")
    assert devices.lack("onnx").endswith("onnxruntime took the CPU, as it finds no GPU or no cuDNN")
    with pytest.raises(PymkError, match="XGBoost took the CPU"):
        LIBRARIES["xgboost"][1]()


def test_a_leaf_opens_models_on_the_device_of_their_kind_and_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}

    def opened(folder: Path, spec: Any, device: str) -> Scorer:
        asked[spec.kind] = device
        return open_scorer(folder, spec)

    monkeypatch.setattr(residents, "open_scorer", opened)
    store = open_store(str(tmp_path / "store"), create=True)
    models = [MODELS["xgboost"], MODELS["onnx, a matrix"]]
    refs = [push(store, str(at), weights, **changes) for at, (changes, weights) in enumerate(models)]
    chosen = {"ranker": "cpu", "xgboost": "cuda", "onnx": "cpu"}
    leaf = LocalLeaf(store.uri, LeafSettings(), HostMetrics(CollectorRegistry()), breaker, chosen)
    for ref in refs:
        leaf.resident(ref, soon())
    assert asked == {"xgboost": "cuda", "onnx": "cpu"}
    with LeafServer("grpc://127.0.0.1:0", leaf, CollectorRegistry()) as server:
        assert server.health()["devices"] == chosen
    leaf_of(store).resident(refs[0], soon())
    assert asked["xgboost"] == "cpu", "a leaf in a worker has no GPU"


@on_cpu_builds
@takes_the_cpu
@every_model
def test_what_is_opened_for_a_gpu_scores_as_on_the_cpu_or_not_at_all(model: str, tmp_path: Path) -> None:
    """XGBoost without a GPU takes the CPU: this is the code around it."""
    changes, weights = MODELS[model]
    spec = small_spec(**changes)
    folder, columns = write_folder(tmp_path, spec, weights), columns_of(spec)
    if spec.kind == "onnx":
        with pytest.raises(PymkError, match="does not open on the GPU: onnxruntime took the CPU"):
            open_scorer(folder, spec, "cuda")
        return
    np.testing.assert_array_equal(open_scorer(folder, spec, "cuda").score(columns), open_scorer(folder).score(columns))


def test_a_network_that_does_not_fit_a_gpu_is_not_tried_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path, small_spec(kind="onnx"), MODELS["onnx, a matrix"][1])
    create = Mock(side_effect=RuntimeError("CUDA failure 2: out of memory\nat 0x0"))
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", create)
    with pytest.raises(PymkError, match="does not open on the GPU: CUDA failure 2: out of memory") as refused:
        open_scorer(folder, device="cuda")
    assert "lower leaves.memory_mib" in refused.value.fix
    create.assert_called_once()


def test_a_network_that_fails_on_its_device_is_not_moved_to_another(tmp_path: Path) -> None:
    spec = small_spec(kind="onnx")
    scorer: Any = open_scorer(write_folder(tmp_path, spec, MODELS["onnx, a matrix"][1]))
    scorer.session._sess = Mock(wraps=scorer.session._sess, **{"run.side_effect": EPFail("CUDA failure 700")})
    for _ in range(2):
        with pytest.raises(PymkError, match="small: CUDA failure 700"):
            scorer.score(columns_of(spec))


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["xgboost", "onnx, a matrix", "onnx, named"])
def test_a_gpu_scores_as_the_cpu_but_for_the_last_bits(model: str, tmp_path: Path) -> None:
    changes, weights = MODELS[model]
    spec = small_spec(**changes)
    if why := devices.lack(spec.kind):
        pytest.skip(why)
    folder, columns = write_folder(tmp_path, spec, weights), columns_of(spec)
    on_cpu, on_gpu = (open_scorer(folder, spec, device).score(columns) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-5, atol=1e-6)
