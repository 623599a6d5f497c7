"""Which device the models of a leaf process score on: a GPU where the library that runs a kind finds one.

A library that is built for CUDA is asked in a process of its own: a broken driver may hang or end whoever asks it.
"""

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from infra.errors import PymkError
from lookup_api.ranking.scorers import CPU, CUDA, KINDS

log = logging.getLogger(__name__)

ON_CPU = dict.fromkeys(KINDS, CPU)
"""Device by kind of model."""
WITHOUT = "its library is built without CUDA"
PROBE = (sys.executable, "-m", "lookup_api.leaves.devices")
PROBE_S = 30.0
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
    lacks = {kind: lack(kind) for kind in LIBRARIES}
    told = {kind: f"{kind} models find no GPU ({why})" for kind, why in lacks.items() if why}
    if wanted == CUDA and told:
        raise PymkError(
            f"leaves.device: cuda, but {' and '.join(told.values())}",
            "Set leaves.device to auto or cpu, or install the GPU's driver, and XGBoost and onnxruntime with CUDA "
            "(the extra gpu instead of cpu).",
        )
    for kind, said in told.items():
        if lacks[kind] != WITHOUT:
            log.warning("%s: they score on the CPU", said)
    return ON_CPU | {kind: CUDA for kind in LIBRARIES if kind not in told}


def lack(kind: str) -> str:
    """Why the kind's library has no GPU; empty where it has one."""
    is_for_cuda, _ = LIBRARIES[kind]
    return _probed(kind) if is_for_cuda() else WITHOUT


def _probed(kind: str) -> str:
    """What the library says in a process of its own."""
    probe = subprocess.Popen(
        [*PROBE, kind], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace"
    )
    try:
        _, said = probe.communicate(timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        probe.kill()  # and not waited for: one that hangs within its driver does not even die
        return f"no answer within {PROBE_S:g} s"
    if probe.returncode < 0:
        return f"the process that asked was ended by {signal.Signals(-probe.returncode).name}"
    return (said.splitlines() or [f"exit code {probe.returncode}"])[-1] if probe.returncode else ""


def _xgboost_is_for_cuda() -> bool:
    import xgboost as xgb

    return bool(xgb.build_info()["USE_CUDA"])


def _ask_xgboost() -> None:
    """It says of a tree where it learnt it."""
    import xgboost as xgb

    with xgb.config_context(verbosity=0):  # it warns where it takes the CPU instead
        booster = xgb.train({"device": CUDA}, xgb.DMatrix(np.zeros((2, 1)), np.zeros(2)), 1)
    if not json.loads(booster.save_config())["learner"]["generic_param"]["device"].startswith(CUDA):
        raise PymkError("XGBoost took the CPU")


def _onnxruntime_is_for_cuda() -> bool:
    """It may not list CUDA's provider before it has loaded CUDA."""
    import onnxruntime

    from lookup_api.ranking.scorer_onnx import ON_CUDA

    return bool(onnxruntime.cuda_version) or ON_CUDA[0] in onnxruntime.get_available_providers()


def _ask_onnxruntime() -> None:
    from lookup_api.ranking.scorer_onnx import session_of

    session_of(IDENTITY, "a graph", CUDA)


LIBRARIES: dict[str, tuple[Callable[[], bool], Callable[[], None]]] = {
    "xgboost": (_xgboost_is_for_cuda, _ask_xgboost),
    "onnx": (_onnxruntime_is_for_cuda, _ask_onnxruntime),
}
"""Kind of model that can score on a GPU -> whether its library is built for CUDA; and what raises where that finds no
GPU."""


def main() -> None:
    """The probe of a kind: exit code 0 where a GPU is found, else why not is the last line on stderr."""
    try:
        LIBRARIES[sys.argv[1]][1]()
    except Exception as error:  # whatever a library with a broken driver dies of
        said = error.what if isinstance(error, PymkError) else f"{type(error).__name__}: {error}"
        sys.exit((said.splitlines() or [""])[0])


if __name__ == "__main__":
    main()
