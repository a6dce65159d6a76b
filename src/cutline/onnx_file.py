"""Checks of ONNX files before an engine opens them, without the onnx package.

Engines follow two things that a bundle's checksums do not cover: references to weights in other
files, and loops that may never end. Cutline's own graphs have neither.

Source: onnx.proto of ONNX 1.17 for the field numbers; Protocol Buffers, "Encoding", for the format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cutline.errors import BundleError, EngineError

_LOOPS = (b"Loop", b"Scan", b"SequenceMap")
_MAX_DEPTH = 32
# Which fields of each message hold which messages; other fields are skipped.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_NODE_OPERATOR, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 4, 13, 14


def check_onnx(path: Path) -> None:
    """Refuse a graph that refers to weights in another file, or that contains a loop.

    Raises:
        BundleError: it does.
        EngineError: the file is not an ONNX graph.
    """
    try:
        problem = _problem(memoryview(path.read_bytes()), "Model", 0)
    except (OSError, ValueError, IndexError) as error:
        raise EngineError(f"cannot load {path}: it is no ONNX graph ({error})") from error
    if problem:
        raise BundleError(f"{path}: got {problem}; expected a graph without that")


def _problem(message: memoryview, kind: str, depth: int) -> str:
    """What is wrong with a message or one inside it; "" if nothing is."""
    if depth > _MAX_DEPTH:
        return f"graphs nested more than {_MAX_DEPTH} deep"
    for number, value in _fields(message):
        if kind == "Tensor" and (
            number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == 1)
        ):
            return "weights in another file"
        if isinstance(value, int):
            continue
        if kind == "Node" and number == _NODE_OPERATOR and bytes(value[:16]) in _LOOPS:
            return f"a loop (operator {bytes(value[:16]).decode()})"
        inner = _MESSAGES[kind].get(number)
        if inner is not None and (problem := _problem(value, inner, depth + 1)):
            return problem
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a Protocol Buffers message: numbers, and integers or bytes.

    Raises:
        ValueError, IndexError: the message is damaged.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire_type == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("it is cut short")
            yield number, message[at : at + length]
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
