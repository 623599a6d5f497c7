"""A training run as one file, so that a run that died goes on where it stood.

The file is safetensors: tensors by name, and in its header JSON that says which run it belongs to, where that stood,
and a digest of the tensors. It is replaced by rename, so a reader sees the old one or the new one, whole.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from infra.errors import CorruptArtifact
from infra.hashing import hash_arrays

VERSION = 1
NAME = "training.safetensors"


@dataclass(frozen=True)
class Saved:
    """tensors: by name, on the CPU. head: JSON values."""

    tensors: dict[str, Tensor]
    head: dict[str, Any]


@dataclass(frozen=True)
class StateFile:
    """The one state kept in `folder`. run: JSON values that name the run; the state of another run is no state."""

    folder: Path
    run: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.folder / NAME

    def save(self, saved: Saved) -> None:
        """Replaces what is kept. Safe against a kill at any moment and a loss of power."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in saved.tensors.items()}
        about = {"version": VERSION, "run": self.run, "head": saved.head, "digest": _digest(tensors)}
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, prefix="writing-")
        os.close(handle)
        new = Path(name)
        try:
            save_file(tensors, new, metadata={"state": json.dumps(about, sort_keys=True)})
            _sync(new)
            os.replace(new, self.path)
        finally:
            new.unlink(missing_ok=True)
        _sync(self.folder)

    def load(self) -> Saved | None:
        """The kept state of this run, None where there is none. Raises CorruptArtifact for a damaged file."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                about = json.loads(file.metadata()["state"])
                if (about["version"], about["run"]) != (VERSION, self.run):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{self.path}: not a training state: {error}") from error
        if _digest(tensors) != about["digest"]:
            raise CorruptArtifact(f"{self.path}: its tensors are not what its header says")
        return Saved(tensors, about["head"])


def tensors_of(optimiser: torch.optim.Optimizer, name: str) -> dict[str, Tensor]:
    """What an optimiser remembers, as `name/parameter/what`."""
    state = optimiser.state_dict()["state"]
    return {f"{name}/{index}/{key}": value for index, kept in state.items() for key, value in kept.items()}


def restore(optimiser: torch.optim.Optimizer, name: str, tensors: dict[str, Tensor]) -> None:
    """The reverse of `tensors_of`."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        owner, _, rest = path.partition("/")
        if owner == name:
            index, _, key = rest.partition("/")
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def unnamed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _digest(tensors: dict[str, Tensor]) -> str:
    return hash_arrays({name: tensor.reshape(-1).numpy() for name, tensor in tensors.items()})


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
