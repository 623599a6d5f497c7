"""What `auto` means on this machine."""

from importlib import metadata

from infra.errors import UsageError
from infra.settings import Settings


def resolved(settings: Settings) -> Settings:
    """Settings without `auto`: they decide artifact ids, and one id must not name what a CPU and a GPU make.

    Raises UsageError for a precision that the device does not have.
    """
    encoder = settings.encoder
    device, precision = encoder.device, encoder.precision
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    if precision == "bfloat16" and device == "cpu":
        raise UsageError("encoder.precision: bfloat16 needs a GPU, the encoder runs on cpu", "Set it to auto.")
    chosen = encoder.model_copy(update={"device": device, "precision": precision})
    return settings.model_copy(update={"encoder": chosen})


def _has_gpu() -> bool:
    """Asks torch, which takes seconds to load, only where it is not a build for CPUs."""
    if metadata.version("torch").endswith("+cpu"):
        return False
    from gnn.runtime import device_of

    return device_of("auto").type == "cuda"
