"""An encoder as files: encoder.safetensors (tensors by name) and encoder.json (what model, of what shape)."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gnn.model import Encoder, EncoderShape
from gnn.models import MODELS
from infra.errors import CorruptArtifact
from infra.hashing import hash_arrays

VERSION = 1
WEIGHTS, HEAD = "encoder.safetensors", "encoder.json"


def save_encoder(folder: Path, model: str, encoder: nn.Module, shape: EncoderShape) -> str:
    """Writes both files and returns the content hash of the tensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    head = {"version": VERSION, "model": model, "shape": shape.to_json()}
    (folder / HEAD).write_text(json.dumps(head, indent=1, sort_keys=True))
    return hash_tensors(tensors)


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    return hash_arrays({name: tensor.numpy() for name, tensor in tensors.items()})


def open_encoder(folder: Path, device: torch.device) -> Encoder:
    """Raises CorruptArtifact on a version or model this code does not know, or tensors that do not fit."""
    head = json.loads((folder / HEAD).read_text())
    if head["version"] != VERSION or head["model"] not in MODELS:
        raise CorruptArtifact(
            f"{folder / HEAD}: model {head['model']} version {head['version']}, "
            f"this code reads {', '.join(MODELS)} version {VERSION}"
        )
    encoder = MODELS[head["model"]](EncoderShape.from_json(head["shape"]))
    try:
        encoder.load_state_dict(load_file(folder / WEIGHTS, device="cpu"))
    except (SafetensorError, RuntimeError) as error:
        raise CorruptArtifact(f"{folder / WEIGHTS}: {error}", "Train the encoder again.") from None
    return encoder.to(device).eval()
