"""A small network above the prior: an ONNX file, run by onnxruntime with one thread."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from infra.errors import CorruptArtifact
from infra.hashing import ContentHash
from lookup_api.ranking.ranker import Float32, Float64, Ranker

if TYPE_CHECKING:
    import onnxruntime

FILE = "ranker.onnx"
INPUT, OUTPUT = "features", "correction"
"""The network's input, float32 [n, F], and output, float32 [n]."""
ROWS = 2048
"""Rows given to the network at a time: what it keeps between layers stays in cache."""
FEWEST_ROWS = 16
"""Fewer rows than this are filled up: matrix products of a few rows take other kernels, which round otherwise."""


@dataclass(frozen=True, kw_only=True)
class MlpRanker(Ranker):
    """network: the ONNX model. about: what model.json says of it: precision, layers, scaling, how it was learnt."""

    kind: ClassVar[str] = "mlp"
    network: bytes
    about: dict[str, Any]

    def above(self, matrix: Float32, margin: Float32) -> Float32:
        out = margin.copy()
        for start in range(0, len(matrix), ROWS):
            part = slice(start, start + ROWS)
            out[part] += self.correction(matrix[part])
        return out

    def correction(self, matrix: Float32) -> Float32:
        """What the network adds to the prior's score, float32 [n], of at most ROWS rows."""
        rows = np.ascontiguousarray(matrix, np.float32)
        if len(rows) < FEWEST_ROWS:
            rows = np.concatenate([rows, np.zeros((FEWEST_ROWS - len(rows), rows.shape[1]), np.float32)])
        (found,) = self._session.run([OUTPUT], {INPUT: rows})
        return np.asarray(found, np.float32)[: len(matrix)]

    def write(self, folder: Path) -> None:
        (folder / FILE).write_bytes(self.network)

    def details(self) -> dict[str, Any]:
        return dict(self.about)

    def content_hash(self) -> str:
        network = np.frombuffer(self.network, np.uint8)
        return ContentHash().array("network", network).json("model", self.head()).hexdigest()

    @classmethod
    def read(cls, folder: Path, prior: Float64, head: dict[str, Any]) -> "MlpRanker":
        about = {name: value for name, value in head.items() if name not in ("version", "kind", "features", "prior")}
        ranker = cls(prior=prior, network=(folder / FILE).read_bytes(), about=about)
        try:
            inputs = ranker._session.get_inputs()
        except Exception as error:  # onnxruntime's errors share no class but this one
            raise CorruptArtifact(f"{folder / FILE}: {error}", "Train the ranker again.") from None
        if [one.name for one in inputs] != [INPUT] or inputs[0].shape[1] != len(prior):
            raise CorruptArtifact(f"{folder / FILE}: takes {inputs}, not {INPUT} float32 [n, {len(prior)}]")
        return ranker

    @cached_property
    def _session(self) -> "onnxruntime.InferenceSession":
        import onnxruntime  # only those who rank with a network pay for it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.network, options, providers=["CPUExecutionProvider"])
