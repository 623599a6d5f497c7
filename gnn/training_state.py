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

from infra.errors import CorruptArtifact, PymkError
from infra.hashing import hash_arrays

VERSION = 2
NAME = "training.safetensors"


class UnfitState(PymkError):
    """A kept state that is whole, but not of this run."""


@dataclass(frozen=True)
class Saved:
    """tensors: by name, on the CPU. head: JSON values."""

    tensors: dict[str, Tensor]
    head: dict[str, Any]


@dataclass(frozen=True)
class StateFile:
    """The one state kept in `folder`. run: JSON values that name the run: whatever decides what it computes."""

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
        """The kept state of this run, None where there is none.

        Raises CorruptArtifact for a damaged file, UnfitState for the state of another run or version.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                about = json.loads(file.metadata()["state"])
                self._refuse_other(about["version"], about["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(f"{self.path}: not a training state: {error}") from error
        if _digest(tensors) != about["digest"]:
            raise CorruptArtifact(f"{self.path}: its tensors are not what its header says")
        return Saved(tensors, about["head"])

    def _refuse_other(self, version: int, run: dict[str, Any]) -> None:
        if version != VERSION:
            raise UnfitState(f"{self.path}: a training state of version {version}, this code reads {VERSION}")
        other = sorted(key for key in self.run.keys() | run.keys() if self.run.get(key) != run.get(key))
        if other:
            raise UnfitState(f"{self.path}: the training state of a run of other {', '.join(other)}")


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


def unfit(saved: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """The first tensor of `wanted` that is not there in its shape and type, in words; empty where all are."""
    for name, tensor in wanted.items():
        found = saved.get(name)
        if found is None:
            return f"no tensor {name}"
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            return f"{name} is {found.dtype} {list(found.shape)}, not {tensor.dtype} {list(tensor.shape)}"
    return ""


def unfit_memory(optimiser: torch.optim.Optimizer, name: str, tensors: dict[str, Tensor]) -> str:
    """What `restore` cannot take, in words: a tensor of no parameter, or of another shape; empty where it can."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for path, tensor in unnamed(name, tensors).items():
        index = path.partition("/")[0]
        if not index.isdigit() or int(index) >= len(parameters):
            return f"{name} has {len(parameters)} parameters, there is a {name}/{path}"
        shape = parameters[int(index)].shape
        if tensor.shape not in (shape, shape[:1], ()):
            return f"{name}/{path} is {list(tensor.shape)}, of a parameter {list(shape)}"
    return ""


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
