"""How torch runs in a stage: threads, seed, determinism, device."""

import numpy as np
import torch

from infra.errors import PymkError


def prepare(threads: int, seed: int) -> None:
    """Makes this process's torch deterministic. Called once by a stage, never at import."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads uninitialised memory, and filling it takes a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(int(np.random.SeedSequence([seed, 0x656E63]).generate_state(1)[0]))


def device_of(wanted: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises PymkError where a GPU is wanted and torch finds none."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise PymkError(
            f"encoder.device: cuda, but torch finds no GPU ({torch.__version__} {built})",
            "Set encoder.device to auto or cpu, or install the GPU's driver and torch with CUDA.",
        )
    return torch.device(wanted)
