"""ONNX graphs as models: networks in float32 or int8, exported blends. One thread of onnxruntime."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.errors import CorruptArtifact, PymkError
from infra.model_spec import ModelSpec
from lookup_api.ranking.scorers import CPU, CUDA, Array, Float32, Scorer, file_of, filled_up, refuse_width

if TYPE_CHECKING:
    import onnxruntime

FILE = "model.onnx"
TYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}
"""onnxruntime's name of a type -> that of an input in model.toml."""
ROWS = 2048
"""Rows given to a graph at a time where each is scored alone: what it keeps between layers stays in cache."""
ON_CPU = "CPUExecutionProvider"
ON_CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})
"""TF32, the default, keeps three digits of what matrix products multiply."""
PROVIDERS: dict[str, list[Any]] = {CPU: [ON_CPU], CUDA: [ON_CUDA, ON_CPU]}
"""Device -> onnxruntime's own, the first that can run a part of a graph runs it."""


@dataclass(frozen=True, kw_only=True)
class OnnxScorer(Scorer):
    """weights: model.onnx, with one input float32 [n, width] of any name (`matrix`), or one for each of the model's
    inputs, by name and of its type; its output of the name that model.toml gives is numbers [n] or [n, 1]."""

    session: "onnxruntime.InferenceSession"
    matrix: str | None

    def of_matrix(self, matrix: Float32) -> Float32:
        if self.matrix is not None:
            return self._run({self.matrix: np.ascontiguousarray(matrix, np.float32)}, len(matrix))
        edges = np.cumsum([one.width for one in self.spec.inputs])[:-1]
        parts = np.split(matrix, edges, axis=1)
        return self.of_columns({
            one.name: (part[:, 0] if one.width == 1 else part).astype(one.dtype)
            for one, part in zip(self.spec.inputs, parts, strict=True)
        })  # fmt: skip

    def of_columns(self, columns: Mapping[str, Array]) -> Float32:
        if self.matrix is not None:
            return super().of_columns(columns)
        return self._run(dict(columns), len(columns[self.spec.columns[0]]))

    def _run(self, inputs: dict[str, Array], rows: int) -> Float32:
        if self.spec.unit == "list":
            return self._call(inputs, rows)
        out = np.empty(rows, np.float32)
        for start in range(0, rows, ROWS):
            part = slice(start, min(start + ROWS, rows))
            some = {name: filled_up(values[part]) for name, values in inputs.items()}
            out[part] = self._call(some, len(next(iter(some.values()))))[: part.stop - start]
        return out

    def _call(self, inputs: dict[str, Array], rows: int) -> Float32:
        """Raises PymkError where the graph fails or gives anything but a number a row."""
        try:
            (found,) = self.session.run([self.spec.output], inputs)
        except Exception as error:  # onnxruntime's errors share no class but this one
            raise PymkError(f"{self.spec.name}: {str(error).splitlines()[0]}") from None
        scores = np.asarray(found)
        if scores.size != rows or scores.dtype.kind not in "fiu":
            raise PymkError(f"{self.spec.name}: {scores.dtype} {list(scores.shape)} of {rows} rows, not a number each")
        return scores.reshape(-1).astype(np.float32)

    @classmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = CPU) -> "OnnxScorer":
        path = file_of(weights, FILE)
        session = session_of(path.read_bytes(), str(path), device)
        outputs = [one.name for one in session.get_outputs()]
        if spec.output not in outputs:
            raise CorruptArtifact(f"{path}: gives {', '.join(outputs)}, model.toml says {spec.output}")
        inputs = session.get_inputs()
        if len(inputs) == 1 and inputs[0].name not in spec.columns:
            if inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 2:
                raise CorruptArtifact(
                    f"{path}: takes {inputs[0].type} {inputs[0].shape}, not float32 [n, {spec.width}]"
                )
            if isinstance(inputs[0].shape[1], int):
                refuse_width(inputs[0].shape[1], spec, path)
            return cls(spec=spec, session=session, matrix=inputs[0].name)
        types = {one.name: TYPES.get(one.type, one.type) for one in inputs}
        wanted = {one.name: one.type for one in spec.inputs}
        if types != wanted:
            differ = sorted(types.items() ^ wanted.items())
            raise CorruptArtifact(f"{path}: its inputs are not those of model.toml: {differ}", "Name each, by type.")
        return cls(spec=spec, session=session, matrix=None)


def session_of(graph: bytes, where: str, device: str = CPU) -> "onnxruntime.InferenceSession":
    """Raises CorruptArtifact, and PymkError where the graph does not open on a GPU."""
    import onnxruntime  # only those who rank with a network pay for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if device == CUDA:
        _load_cuda()
    try:  # without its fallback, which goes on on the CPU and tells nobody
        session = onnxruntime.InferenceSession(graph, options, providers=PROVIDERS[device], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors share no class but this one
        said = str(error).splitlines()[0]
        if device == CUDA:
            raise _not_on_gpu(where, said) from None
        raise CorruptArtifact(f"{where}: {said}", "Export the model again.") from None
    if device == CUDA and ON_CUDA[0] not in session.get_providers():
        raise _not_on_gpu(where, "onnxruntime took the CPU, as it finds no GPU or no cuDNN")
    return session


def _not_on_gpu(where: str, why: str) -> PymkError:
    return PymkError(
        f"{where}: does not open on the GPU: {why}",
        "Where its memory is full, lower leaves.memory_mib or route to fewer models; or set leaves.device to cpu.",
    )


@cache
def _load_cuda() -> None:
    """The libraries of CUDA and cuDNN that pip installed."""
    import onnxruntime

    onnxruntime.preload_dlls()
