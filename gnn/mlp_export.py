"""The ranker's network as an ONNX model, in float32 or in int8."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gnn.mlp import BOUND, Float32, ListwiseMlp

INPUT, OUTPUT = "features", "correction"
OPSET, IR_VERSION = 21, 10
CALIBRATION_ROWS = 1024
"""Rows the int8 ranges are measured on at a time."""


def to_onnx(model: ListwiseMlp) -> bytes:
    """The ONNX model: features float32 [n, F] -> correction float32 [n].

    What is done to each element is exact arithmetic (no logarithm, whose last bit depends on the place in a batch).
    """
    tensors = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    weights = {
        name: tensors[name].T.copy() if name.endswith("weight") else tensors[name]
        for name in ("squashed", "middle", "mean", "scale", *(n for n in tensors if "." in n))
    } | {"low": np.float32(-BOUND), "high": np.float32(BOUND), "columns": np.array([1], np.int64)}
    nodes = [
        _node("Abs", INPUT, out="size"),
        _node("Mul", "size", "squashed", out="wide"),
        _node("Add", "wide", "middle", out="divisor"),
        _node("Div", INPUT, "divisor", out="even"),
        _node("Sub", "even", "mean", out="centred"),
        _node("Div", "centred", "scale", out="standard"),
        _node("Clip", "standard", "low", "high", out="scaled"),
        _node("MatMul", "scaled", "first.weight", out="first.product"),
        _node("Add", "first.product", "first.bias", out="first.sum"),
        _node("Relu", "first.sum", out="first"),
        _node("MatMul", "first", "second.weight", out="second.product"),
        _node("Add", "second.product", "second.bias", out="second.sum"),
        _node("Relu", "second.sum", out="second"),
        _node("MatMul", "second", "last.weight", out="added"),
        _node("Squeeze", "added", "columns", out=OUTPUT),
    ]
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["pairs", len(tensors["mean"])])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["pairs"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return _bytes(graph)


def _node(kind: str, *inputs: str, out: str) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [out], name=out)


def _bytes(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, producer_name="pymk", ir_version=IR_VERSION)
    onnx.checker.check_model(made, full_check=True)
    found: bytes = made.SerializeToString(deterministic=True)
    return found


def to_int8(network: bytes, sample: Float32) -> bytes:
    """The same network with its two large products in int8, their ranges measured on rows like sample float32 [n, F].

    Ranges are fixed now and not per batch, so that a score does not depend on who is scored with it. Weights take seven
    bits: processors without VNNI instructions add pairs of products in 16 bits, which eight would overflow.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(network)
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})  # small as it is: nothing to warn of
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            out,
            _Rows(sample),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=["first.product", "second.product"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            per_channel=False,
            calibrate_method=CalibrationMethod.MinMax,
        )
        found: bytes = onnx.load(out).SerializeToString(deterministic=True)
    return found


class _Rows:
    """Hands rows to onnxruntime's calibration, some at a time."""

    def __init__(self, rows: Float32) -> None:
        self._batches: Iterator[dict[str, Any]] = (
            {INPUT: rows[start : start + CALIBRATION_ROWS]} for start in range(0, len(rows), CALIBRATION_ROWS)
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)
