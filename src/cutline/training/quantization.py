"""Static int8 quantisation of a bundle's graphs, in the QDQ form that inference engines know.

Convolutions and products with constant weights get int8 weights with one scale for each output
unit and uint8 inputs with one scale and zero point, which are calibrated on images. Engines turn
`QuantizeLinear` and `DequantizeLinear` around an operator into its int8 version. Ranges are fixed
when the graph is written, so that no image changes the result of another one in its batch.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cutline.runtime import open_graph

Floats = NDArray[np.float32]
Feed = Mapping[str, NDArray[Any]]


def quantize(graph: Path, feeds: Sequence[Feed]) -> None:
    """Quantise a float32 graph in place.

    A convolution that reads an input of the graph stays in float: for an encoder this halves the
    error of the features and costs no measurable time.

    Args:
        graph: the file; its weights have their names in torch.
        feeds: inputs to calibrate on, by name.
    """
    model = onnx.load(graph)
    _unfold_transposes(model)
    given = {port.name for port in model.graph.input}
    products = [
        node for node in _products(model) if not (node.op_type == "Conv" and node.input[0] in given)
    ]
    extremes = _extremes(model, _activations(model, products), feeds)
    ranges = {name: _range(each) for name, each in extremes.items()}
    _Writer(model, products, ranges).write()
    onnx.checker.check_model(model)
    graph.write_bytes(model.SerializeToString(deterministic=True))


def quantize_weights(
    weights: Floats, axis: int, least: Floats | float = 1e-14
) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric int8 with one scale for each index of an axis, of least squared error.

    Args:
        weights: of any shape.
        axis: with n indices.
        least: the smallest scale (n,).

    Returns:
        the weights in -127..127, and the scales (n,).
    """
    other = tuple(each for each in range(weights.ndim) if each != axis)
    largest = np.maximum(np.abs(weights).max(axis=other, keepdims=True), 1e-12)
    best, scales = np.full(largest.shape, np.inf), largest / 127
    for share in np.linspace(0.7, 1, 13):
        scale = largest * share / 127
        rounded = np.clip(np.rint(weights / scale), -127, 127) * scale
        error = np.square(rounded - weights).sum(axis=other, keepdims=True)
        scales = np.where(error < best, scale, scales)
        best = np.minimum(error, best)
    shape = [-1 if each == axis else 1 for each in range(weights.ndim)]
    lower = np.broadcast_to(np.asarray(least), (weights.shape[axis],)).reshape(shape)
    scales = np.maximum(scales, lower).astype(np.float32)
    return np.clip(np.rint(weights / scales), -127, 127).astype(np.int8), scales.ravel()


def _range(values: Floats) -> tuple[float, int]:
    """The scale and zero point of uint8 for values from the smallest to the largest, and 0."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = (high - low) / 255 or 1.0
    return scale, int(np.rint(-low / scale))


def _arrays(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def _unfold_transposes(model: onnx.ModelProto) -> None:
    """Store a transposed weight as a weight: engines quantise no product with a transposed one."""
    arrays, kept = _arrays(model), []
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in arrays and not node.attribute:
            turned = np.ascontiguousarray(arrays[node.input[0]].T)
            model.graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
        elif node.op_type == "Transpose" and node.input[0] in arrays:
            axes = helper.get_node_attr_value(node, "perm")
            turned = np.ascontiguousarray(arrays[node.input[0]].transpose(axes))
            model.graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
        else:
            kept.append(node)
    model.graph.ClearField("node")
    model.graph.node.extend(kept)


def _products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions and products with constant weights."""
    constant = {each.name for each in model.graph.initializer}
    kinds = ("Conv", "MatMul", "Gemm")
    return [n for n in model.graph.node if n.op_type in kinds and n.input[1] in constant]


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def _activations(model: onnx.ModelProto, products: Sequence[onnx.NodeProto]) -> list[str]:
    """The activations that are quantised, in the order of the graph."""
    names: dict[str, None] = {}
    producers = {name: node for node in model.graph.node for name in node.output}
    readers = _readers(model)
    for node in products:
        names[node.input[0]] = None
        if node.op_type == "Conv":  # a convolution runs in int8 only if its output is quantised
            output = node.output[0]
            following = readers[output]
            if len(following) == 1 and following[0].op_type in ("Clip", "Relu"):
                output = following[0].output[0]
            names[output] = None
    for node in model.graph.node:  # sums of quantised tensors
        if node.op_type == "Add" and all(
            name in producers and producers[name].op_type in ("Conv", "Add") and name in names
            for name in node.input
        ):
            names[node.output[0]] = None
    return list(names)


def _extremes(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]
) -> dict[str, Floats]:
    """The smallest and the largest value of activations by name, over all feeds: (2,)."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    present = {each.name for each in (*shown.graph.input, *shown.graph.output)}
    shown.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in present
    )
    found: dict[str, list[Any]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(shown.SerializeToString())
        run = open_graph(path, 1)
        for feed in feeds:
            output = {**run(feed), **feed}
            for name in names:
                found[name] += [output[name].min(), output[name].max()]
    return {name: np.array([min(ends), max(ends)], np.float32) for name, ends in found.items()}


class _Writer:
    """Puts `QuantizeLinear` and `DequantizeLinear` around the operators of a graph."""

    def __init__(
        self,
        model: onnx.ModelProto,
        products: Sequence[onnx.NodeProto],
        ranges: Mapping[str, tuple[float, int]],
    ) -> None:
        self.model, self.ranges = model, ranges
        self.products = {node.output[0] for node in products}
        self.arrays = _arrays(model)
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, NDArray[Any]] = {}

    def write(self) -> None:
        """Rewrite the graph."""
        nodes = list(self.model.graph.node)
        for port in self.model.graph.input:
            self._quantize(port.name)
        for node in nodes:
            node.input[:] = [
                f"{name}.dequantized" if name in self.ranges else name for name in node.input
            ]
            if node.output[0] in self.products:
                self._weights(node)
            if node.op_type == "Gather" and node.input[0] in self.arrays:
                self._table(node)
            self.nodes.append(node)
            for name in node.output:
                self._quantize(name)
        graph = self.model.graph
        graph.ClearField("node")
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        used -= {name for node in graph.node for name in node.output}
        stored = {**self.arrays, **self.added}
        graph.ClearField("initializer")
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in stored.items() if name in used
        )

    def _quantize(self, name: str) -> None:
        """Quantise an activation and expand it again."""
        if name not in self.ranges:
            return
        scale, zero = self.ranges[name]
        self.added[f"{name}.step"] = np.array(scale, np.float32)
        self.added[f"{name}.zero"] = np.array(zero, np.uint8)
        ends = [f"{name}.step", f"{name}.zero"]
        quantized, dequantized = f"{name}.quantized", f"{name}.dequantized"
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, *ends], [quantized]),
            helper.make_node("DequantizeLinear", [quantized, *ends], [dequantized]),
        ]

    def _weights(self, node: onnx.NodeProto) -> None:
        """Expand the weights, and the bias of a convolution, from integers."""
        name, source = node.input[1], node.input[0].removesuffix(".dequantized")
        turned = any(each.name == "transB" and each.i for each in node.attribute)
        axis = 0 if node.op_type == "Conv" or turned else 1
        bias = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
        if f"{name}.int8" not in self.added:
            least = 0.0
            if bias:  # the bias is an int32 in units of the input's scale times this one
                least = np.abs(self.arrays[bias]) / (self.ranges[source][0] * 2**24)
            stored, scales = quantize_weights(self.arrays[name], axis, least)
            self.added |= {f"{name}.int8": stored, f"{name}.scale": scales}
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis
                )
            )
        if bias:
            scale = np.float32(self.ranges[source][0]) * self.added[f"{name}.scale"]
            self.added[f"{bias}.int32"] = np.rint(self.arrays[bias] / scale).astype(np.int32)
            self.added[f"{bias}.scale"] = scale
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{bias}.int32", f"{bias}.scale"], [bias], axis=0
                )
            )

    def _table(self, node: onnx.NodeProto) -> None:
        """Look words up in a table of int8, one scale for each row."""
        name, output = node.input[0], node.output[0]
        stored, scales = quantize_weights(self.arrays[name], 0)
        self.added |= {f"{name}.int8": stored, f"{name}.scale": scales[:, None]}
        row, scale = f"{output}.int8", f"{output}.scale"
        self.nodes += [
            helper.make_node("Gather", [f"{name}.int8", node.input[1]], [row]),
            helper.make_node("Gather", [f"{name}.scale", node.input[1]], [scale]),
            helper.make_node("Cast", [row], [f"{output}.wide"], to=onnx.TensorProto.FLOAT),
        ]
        node.CopyFrom(helper.make_node("Mul", [f"{output}.wide", scale], [output]))
