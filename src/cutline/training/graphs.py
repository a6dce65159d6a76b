"""The graphs of a bundle, written from a model in torch, and their compression."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from cutline.text import Vocabulary
from cutline.training.checkpoint import Trained
from cutline.training.decoders import Decoder
from cutline.training.decoders.core import spread
from cutline.training.detectors import DetectorEncoder, write_onnx


class EncoderWithLabels(nn.Module):
    """pixels -> features, embedding, and ImageNet logits where the model has labels."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.encoder, self.labels = trained.encoder, trained.labels

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        features, embedding, *rest = self.encoder(pixels)
        if self.labels is None:
            return features, embedding, *rest
        return features, embedding, self.labels(*rest)


class _Start(nn.Module):
    """features -> memory and state, as a tuple."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.decoder.start(features)
        return (*memory.values(), *state.values())


class _Step(nn.Module):
    """tokens, memory and state -> logprobs, attention if there is any, and the next state."""

    def __init__(self, decoder: Decoder, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.decoder, self.memory, self.state = decoder, memory, state

    def forward(self, tokens: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        memory = dict(zip(self.memory, rest, strict=False))
        state = dict(zip(self.state, rest[len(self.memory) :], strict=True))
        hidden, attention, after = self.decoder.advance(tokens, memory, state)
        logprobs = self.decoder.logits(hidden).log_softmax(-1)
        looked = () if attention is None else (attention,)
        return (logprobs, *looked, *(after[name] for name in self.state))


def write_graphs(trained: Trained, folder: Path) -> None:
    """The graphs of a bundle in float32; batch and beam axes are dynamic."""
    write_encoder(trained, folder)
    write_decoder(trained, folder)


def write_encoder(trained: Trained, folder: Path) -> None:
    """`encoder.onnx`, with the labels in it if there are any."""
    per_image = {0: torch.export.Dim("images", min=1)}
    pixels = trained.probe.expand(2, -1, -1, -1)
    path = folder / "encoder.onnx"
    if isinstance(trained.encoder, DetectorEncoder):
        write_onnx(trained.encoder, path)
        strip_metadata(path)
        return
    encoder = EncoderWithLabels(trained)
    with torch.no_grad():
        count = len(encoder(pixels))
    outputs = ["features", "embedding", "logits"][:count]
    _write(path, encoder, (pixels,), (per_image,), ["pixels"], outputs)


def write_decoder(trained: Trained, folder: Path) -> None:
    """`start.onnx` and `step.onnx`; an axis that grows from word to word is dynamic too."""
    images, rows = torch.export.Dim("images", min=1), torch.export.Dim("rows", min=1)
    read = torch.export.Dim("read", min=0)
    decoder, tokens = trained.decoder, torch.full((2, 3), Vocabulary.bos)
    with torch.no_grad():
        features = trained.features(trained.probe).repeat(2, 1, 1)
        memory, state = decoder.start(features)
        state = {name: each.contiguous() for name, each in spread(state, 3).items()}
        for _ in range(2):  # a length of 0 or 1 would be taken for a constant
            state = decoder.advance(tokens, memory, state)[2]
        _, attention, after = decoder.advance(tokens, memory, state)
    per_image, per_row = {0: images}, {0: images, 1: rows}
    state_axes = [
        per_row | {axis: read for axis in range(old.dim()) if old.shape[axis] != new.shape[axis]}
        for old, new in zip(state.values(), after.values(), strict=True)
    ]
    memory_names = [f"memory_{name}" for name in memory]
    state_names = [f"state_{name}" for name in state]
    looked = [] if attention is None else ["attention"]
    _write(
        folder / "start.onnx", _Start(decoder), (features,), (per_image,),
        ["features"], [*memory_names, *state_names],
    )  # fmt: skip
    _write(
        folder / "step.onnx", _Step(decoder, list(memory), list(state)),
        (tokens, *memory.values(), *state.values()),
        (per_row, (*[per_image] * len(memory), *state_axes)),
        ["tokens", *memory_names, *state_names],
        ["logprobs", *looked, *(f"next_{name}" for name in state_names)],
    )  # fmt: skip


def _write(
    path: Path, module: nn.Module, arguments: tuple[Tensor, ...], axes: Any,
    inputs: list[str], outputs: list[str],
) -> None:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), arguments, dynamo=True, dynamic_shapes=axes, verbose=False,
            input_names=inputs, output_names=outputs,
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    strip_metadata(path)


def strip_metadata(graph: Path) -> None:
    """Remove stack traces, local paths and shapes of intermediate values from a graph file."""
    model = onnx.load(graph)
    parts = [model, model.graph, *model.graph.node, *model.graph.initializer]
    for part in [*parts, *model.graph.input, *model.graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    graph.write_bytes(model.SerializeToString(deterministic=True))


def compress(graph: Path, *, int8: bool, least: int = 4096) -> None:
    """Store large float32 weights in fewer bits; engines expand them to float32 when they load.

    Args:
        graph: the file, changed in place.
        int8: whether matrices become int8 with one scale for each output unit; other weights, and
            all of them without it, become float16.
        least: weights with fewer elements stay float32.
    """
    model = onnx.load(graph)
    multiplied = {
        name for node in model.graph.node if node.op_type == "MatMul" for name in node.input
    }
    nodes, added = [], []
    for tensor in model.graph.initializer:
        array, name = onnx.numpy_helper.to_array(tensor), tensor.name
        if array.dtype != np.float32 or array.size < least:
            continue
        if int8 and array.ndim == 2:
            scale = np.abs(array).max(axis=0 if name in multiplied else 1, keepdims=True) / 127
            scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
            stored = np.rint(array / scale).astype(np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored, f"{name}.int8"))
            added.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
            nodes += [
                onnx.helper.make_node(
                    "Cast", [f"{name}.int8"], [f"{name}.wide"], to=onnx.TensorProto.FLOAT
                ),
                onnx.helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]),
            ]
        else:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half"))
            nodes.append(
                onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
            )
    model.graph.initializer.extend(added)
    nodes += list(model.graph.node)
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString(deterministic=True))
