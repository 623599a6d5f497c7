"""How torch runs in a stage: threads, seed, determinism, device, precision."""

import os

import numpy as np
import torch

from infra.errors import PymkError


def prepare(threads: int, seed: int) -> None:
    """Makes this process's torch deterministic. Called once by a stage, never at import."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else a GPU's matrix products are not deterministic
    torch.use_deterministic_algorithms(True)
    # Nothing here reads uninitialised memory, and filling it takes a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(int(np.random.SeedSequence([seed, 0x656E63]).generate_state(1)[0]))


def device_of(wanted: str, local_rank: int = 0) -> torch.device:
    """`auto` is a GPU if there is one. local_rank: which GPU, where several processes train on one machine.

    Raises PymkError where a GPU is wanted and torch finds none, or too few.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise PymkError(
            f"encoder.device: cuda, but torch finds no GPU ({torch.__version__} {built})",
            "Set encoder.device to auto or cpu, or install the GPU's driver and torch with CUDA.",
        )
    if local_rank >= torch.cuda.device_count():
        raise PymkError(
            f"encoder.processes: process {local_rank + 1} has no GPU, torch finds {torch.cuda.device_count()}",
            "Set encoder.processes to the number of GPUs at most.",
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """A context in which a model's matrix products are of bfloat16 on a GPU, where the precision says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" and precision == "bfloat16")
