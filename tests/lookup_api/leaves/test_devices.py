"""A leaf process scores on a GPU where there is one, says on what it does, and refuses what it cannot do."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import xgboost as xgb
from prometheus_client import CollectorRegistry

from infra.errors import PymkError
from infra.serving_settings import LeafSettings
from infra.settings import load
from infra.store import open_store
from lookup_api.leaves import residents
from lookup_api.leaves.devices import LACKS, devices_of
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
    for kind, said in why.items():
        monkeypatch.setitem(LACKS, kind, lambda said=said: said)


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


def test_a_library_that_dies_of_its_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> str:
        raise RuntimeError("driver too old\nat 0x0")

    lack(monkeypatch, onnx="")
    monkeypatch.setitem(LACKS, "xgboost", dies)
    assert devices_of("auto") == {"ranker": "cpu", "xgboost": "cpu", "onnx": "cuda"}
    with pytest.raises(PymkError, match=r"cuda, but xgboost models find no GPU \(RuntimeError: driver too old\)"):
        devices_of("cuda")


def test_a_leaf_that_is_to_score_on_a_gpu_and_has_none_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, xgboost="", onnx="onnxruntime finds no GPU (1 is built without CUDA)")
    settings = load(None, {"leaves.device": "cuda"}, {})[0]
    with pytest.raises(PymkError, match=r"leaves\.device: cuda, but onnxruntime finds no GPU") as refused:
        serve_leaf("nowhere", settings, "127.0.0.1", 0, None)
    assert "Set leaves.device to auto or cpu" in refused.value.fix


@on_cpu_builds
@takes_the_cpu
def test_libraries_without_a_gpu_say_so_be_they_built_for_one_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ["built without CUDA" in ask() for ask in LACKS.values()] == [True, True]
    monkeypatch.setattr(xgb, "build_info", lambda: {"USE_CUDA": True})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert ["built for CUDA" in ask() for ask in LACKS.values()] == [True, True]


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
def test_what_is_opened_for_a_gpu_scores_as_on_the_cpu(model: str, tmp_path: Path) -> None:
    """Libraries that find no GPU take the CPU: this is the code around them."""
    changes, weights = MODELS[model]
    spec = small_spec(**changes)
    folder, columns = write_folder(tmp_path, spec, weights), columns_of(spec)
    np.testing.assert_array_equal(open_scorer(folder, spec, "cuda").score(columns), open_scorer(folder).score(columns))


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["xgboost", "onnx, a matrix", "onnx, named"])
def test_a_gpu_scores_as_the_cpu_but_for_the_last_bits(model: str, tmp_path: Path) -> None:
    changes, weights = MODELS[model]
    spec = small_spec(**changes)
    if why := LACKS[spec.kind]():
        pytest.skip(why)
    folder, columns = write_folder(tmp_path, spec, weights), columns_of(spec)
    on_cpu, on_gpu = (open_scorer(folder, spec, device).score(columns) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-5, atol=1e-6)
