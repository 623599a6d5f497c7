"""Which device the models of a leaf process score on: a GPU where the library that runs a kind finds one."""

import json
from collections.abc import Callable

import numpy as np

from infra.errors import PymkError
from lookup_api.ranking.scorers import CPU, CUDA, KINDS

ON_CPU = dict.fromkeys(KINDS, CPU)
"""Device by kind of model."""
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a080801"
    "12040a0208014202100d"
)
"""The smallest graph of ONNX: y is x."""


def devices_of(wanted: str) -> dict[str, str]:
    """Device by kind of model. `auto` is a GPU for the kinds whose library finds one.

    Raises PymkError where a GPU is wanted and a library finds none.
    """
    if wanted == CPU:
        return ON_CPU
    lacks = {kind: _why(kind) for kind in LACKS}
    if wanted == CUDA and any(lacks.values()):
        raise PymkError(
            f"leaves.device: cuda, but {' and '.join(filter(None, lacks.values()))}",
            "Set leaves.device to auto or cpu, or install the GPU's driver, and XGBoost and onnxruntime with CUDA "
            "(the extra gpu instead of cpu).",
        )
    return ON_CPU | {kind: CUDA for kind, lack in lacks.items() if not lack}


def _why(kind: str) -> str:
    """Why the kind's library has no GPU; empty where it has one."""
    try:
        return LACKS[kind]()
    except Exception as error:  # whatever a library with a broken driver dies of, the CPU scores
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return f"{kind} models find no GPU ({said})"


def _xgboost_lacks() -> str:
    """Why XGBoost has no GPU; empty where it has one, as it says of a tree that it learnt there."""
    import xgboost as xgb

    if not xgb.build_info()["USE_CUDA"]:
        return f"XGBoost finds no GPU ({xgb.__version__} is built without CUDA)"
    with xgb.config_context(verbosity=0):  # it warns where it takes the CPU instead
        booster = xgb.train({"device": CUDA}, xgb.DMatrix(np.zeros((2, 1)), np.zeros(2)), 1)
    device = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    return "" if device.startswith(CUDA) else f"XGBoost finds no GPU ({xgb.__version__} is built for CUDA)"


def _onnxruntime_lacks() -> str:
    """Why onnxruntime has no GPU; empty where it has one, as it says of a graph that it opened there."""
    import onnxruntime

    from lookup_api.ranking.scorer_onnx import ON_CUDA, PROVIDERS

    if ON_CUDA[0] not in onnxruntime.get_available_providers():
        return f"onnxruntime finds no GPU ({onnxruntime.__version__} is built without CUDA)"
    onnxruntime.preload_dlls()  # those of CUDA and cuDNN that pip installed
    session = onnxruntime.InferenceSession(IDENTITY, providers=PROVIDERS[CUDA])
    if ON_CUDA[0] in session.get_providers():
        return ""
    return f"onnxruntime finds no GPU, or no cuDNN ({onnxruntime.__version__} is built for CUDA)"


LACKS: dict[str, Callable[[], str]] = {"xgboost": _xgboost_lacks, "onnx": _onnxruntime_lacks}
"""Kind of model that can score on a GPU -> asks its library why it has none."""
