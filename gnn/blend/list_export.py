"""A torch module of lists as a folder that `pymk model push` takes.

The module is traced and written as ONNX, by the exporter that needs no further library; its forward may be any torch
code whose path does not depend on the numbers of a list. Nothing is exported of which onnxruntime does not give the
scores of torch within the model's tolerance, for the list at hand and for shorter ones.
"""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from infra.errors import PymkError, UsageError
from infra.model_golden import Golden, write_golden
from infra.model_spec import FILE, WEIGHTS, ModelSpec

ONNX, CARD = "model.onnx", "card.md"
OPSET = 18

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]


def export_list(model: nn.Module, spec: ModelSpec, columns: Mapping[str, Array], card: str, folder: Path) -> None:
    """Writes model.toml, weights, golden batch and card.

    model: forward(columns by name) -> scores float32 [n]. columns: of one list, as the root gives them, by name of the
    input; of more people than the module picks. They become the golden batch. Raises UsageError for a spec of another
    kind or of inputs that the module does not use, PymkError where the exported graph scores otherwise than torch does.
    """
    if (spec.kind, spec.unit) != ("onnx", "list"):
        raise UsageError(f"{spec.name}: kind {spec.kind!r}, unit {spec.unit!r}", 'Write kind = "onnx", unit = "list".')
    given = {one.name: np.asarray(columns[one.name], one.dtype) for one in spec.inputs}
    graph = to_onnx(model, spec, given)
    _refuse_other_scores(model, spec, given, graph)
    (folder / WEIGHTS).mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS / ONNX).write_bytes(graph)
    (folder / FILE).write_text(spec.to_toml())
    (folder / CARD).write_text(card)
    write_golden(folder, spec, Golden(given, scores_of(model, given)))


def scores_of(model: nn.Module, columns: Mapping[str, Array]) -> Float32:
    """What torch scores a list."""
    with torch.no_grad():
        found = model({name: torch.from_numpy(column) for name, column in columns.items()})
    return np.asarray(found.numpy(), np.float32)


def to_onnx(model: nn.Module, spec: ModelSpec, columns: Mapping[str, Array]) -> bytes:
    """The graph, for lists of any length: an input for each of the model's, by name and of its type."""
    names = list(spec.columns)
    given = tuple(torch.from_numpy(np.ascontiguousarray(columns[name])) for name in names)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of what tracing fixes, which is compared below
        torch.onnx.export(
            _ByName(model, names).eval(),
            given,
            Path(scratch) / ONNX,
            dynamo=False,
            input_names=names,
            output_names=[spec.output],
            dynamic_axes={name: {0: "n"} for name in (*names, spec.output)},
            opset_version=OPSET,
        )
        return (Path(scratch) / ONNX).read_bytes()


class _ByName(nn.Module):
    """A module that is given its columns one after the other, as a graph is."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *columns: Tensor) -> Tensor:
        return self.model(dict(zip(self.names, columns, strict=True)))  # type: ignore[no-any-return]


def _refuse_other_scores(model: nn.Module, spec: ModelSpec, columns: Mapping[str, Array], graph: bytes) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    unused = sorted({*spec.columns} - {one.name for one in session.get_inputs()})
    if unused:
        raise UsageError(f"{spec.name}: {', '.join(unused)}: the module does not use it", "Leave it out of the inputs.")
    rows = len(columns[spec.columns[0]])
    for length in sorted({1, 2, rows // 2, rows - 1, rows} - {0}):
        some = {name: column[:length] for name, column in columns.items()}
        found, wanted = session.run([spec.output], some)[0], scores_of(model, some)
        off = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), np.float32(1e-30)))
        if not off <= spec.tolerance:
            what = f"{spec.name}: of {length} people the exported graph scores otherwise, by {off:.2g} of the largest"
            fix = "Let no step of forward depend on the numbers of a list, and give more people than it picks."
            raise PymkError(what, fix)
