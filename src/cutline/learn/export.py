"""A trained run -> a bundle; nothing is written unless torch and the exported graphs agree."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cutline.data import Example
from cutline.errors import ParityError
from cutline.image import Transform, load_image
from cutline.learn.decoders import Decoder, TorchStepper, build
from cutline.learn.encoders import SIDE_PX, Backbone
from cutline.learn.recipe import Recipe
from cutline.text import Vocabulary

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Trained:
    """A run's weights, put together again.

    Attributes:
        backbone: the frozen backbone, whose top tells the labels.
        top: the backbone's top as training left it.
    """

    recipe: Recipe
    vocabulary: Vocabulary
    backbone: Backbone
    top: nn.Module
    decoder: Decoder

    @property
    def transform(self) -> Transform:
        """What a picture goes through before the encoder."""
        return Transform(side_px=SIDE_PX[self.recipe.encoder.backbone])

    @classmethod
    def read(cls, run: Path, checkpoint: str = "best.ckpt") -> Trained:
        """Read a run folder that `train` wrote."""
        recipe = Recipe.from_dict(json.loads((run / "recipe.json").read_text()))
        vocabulary = Vocabulary.read(run / "vocabulary.txt")
        backbone = Backbone(recipe.encoder.backbone, recipe.encoder.cut)
        top = Backbone(recipe.encoder.backbone, recipe.encoder.cut).top
        weights = torch.load(run / checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        parts: dict[str, dict[str, Tensor]] = {"top": {}, "decoder": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        top.load_state_dict(parts["top"])
        side = SIDE_PX[recipe.encoder.backbone]
        with torch.no_grad():
            width = top(backbone.trunk(torch.zeros(1, 3, side, side))).shape[1]
        decoder = build(len(vocabulary), width, recipe.decoder)
        decoder.load_state_dict(parts["decoder"])
        return cls(recipe, vocabulary, backbone.eval(), top.eval(), decoder.eval())


class _Encode(nn.Module):
    """pixels -> features (B,N,D), embedding (B,D), mid (B,C,H,W)."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.trunk, self.top = trained.backbone.trunk, trained.top

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mid = self.trunk(pixels)
        features = self.top(mid).flatten(2).transpose(1, 2)
        return features, features.mean(1), mid


class _Labels(nn.Module):
    """mid -> ImageNet logits (B,1000), by the top as it was before training."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.top, self.classifier = trained.backbone.top, trained.backbone.classifier

    def forward(self, mid: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.top(mid).mean((2, 3)))
        return logits


class _Start(nn.Module):
    """features -> memory and state, as a tuple."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.decoder.start(features)
        return (*memory.values(), *state.values())


class _Step(nn.Module):
    """tokens, memory and state -> logprobs, attention and the next state, as a tuple."""

    def __init__(self, decoder: Decoder, memory: Sequence[str], state: Sequence[str]) -> None:
        super().__init__()
        self.decoder, self.memory, self.state = decoder, memory, state

    def forward(self, tokens: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        memory = dict(zip(self.memory, rest, strict=False))
        state = dict(zip(self.state, rest[len(self.memory) :], strict=True))
        hidden, attention, after = self.decoder.advance(tokens, memory, state)
        logprobs = self.decoder.logits(hidden).log_softmax(-1)
        return (logprobs, attention, *(after[name] for name in self.state))


def write_graphs(trained: Trained, folder: Path) -> None:
    """The four graphs of a bundle in float32; batch and beam axes are dynamic."""
    images, rows = torch.export.Dim("images", min=1), torch.export.Dim("rows", min=1)
    side = trained.transform.side_px
    with torch.no_grad():
        pixels = torch.zeros(2, 3, side, side)
        features, _, mid = _Encode(trained)(pixels)
        memory, state = trained.decoder.start(features)
        state = {name: rows_.expand(-1, 3, *rows_.shape[2:]).contiguous() for name, rows_ in state.items()}
    memory_names = [f"memory_{name}" for name in memory]
    state_names = [f"state_{name}" for name in state]
    per_image, per_row = {0: images}, {0: images, 1: rows}

    def write(
        name: str, module: nn.Module, arguments: tuple[Tensor, ...], axes: Any,
        inputs: list[str], outputs: list[str],
    ) -> None:  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), arguments, dynamo=True, dynamic_shapes=axes, verbose=False,
                input_names=inputs, output_names=outputs,
            )  # fmt: skip
        assert program is not None
        program.save(str(folder / f"{name}.onnx"), external_data=False)

    write(
        "encoder", _Encode(trained), (pixels,), (per_image,),
        ["pixels"], ["features", "embedding", "mid"],
    )  # fmt: skip
    write("labels", _Labels(trained), (mid,), (per_image,), ["mid"], ["logits"])
    write(
        "start", _Start(trained.decoder), (features,), (per_image,),
        ["features"], [*memory_names, *state_names],
    )  # fmt: skip
    write(
        "step", _Step(trained.decoder, list(memory), list(state)),
        (torch.zeros(2, 3, dtype=torch.int64), *memory.values(), *state.values()),
        (per_row, (*[per_image] * len(memory), *[per_row] * len(state))),
        ["tokens", *memory_names, *state_names],
        ["logprobs", "attention", *(f"next_{name}" for name in state_names)],
    )  # fmt: skip


def quantise(graph: Path, inputs: Arrays, batch: int = 8) -> None:
    """Convolutions to 8-bit integers in place, calibrated on `inputs` (Jacob et al., 2018)."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            count = len(next(iter(inputs.values())))
            self.starts = iter(range(0, count, batch))

        def get_next(self) -> Arrays | None:
            start = next(self.starts, None)
            if start is None:
                return None
            return {name: array[start : start + batch] for name, array in inputs.items()}

    prepared = graph.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared))
    quantize_static(
        str(prepared), str(graph), Reader(),
        quant_format=QuantFormat.QDQ, per_channel=True, calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv", "Add"],
    )  # fmt: skip
    prepared.unlink()


def halve(graph: Path, least: int = 4096) -> None:
    """Store large float32 weights as float16 in place; they are widened again when loaded."""
    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size >= least:
            name = tensor.name
            half = onnx.numpy_helper.from_array(array.astype(np.float16), f"{name}.half")
            tensor.CopyFrom(half)
            cast = onnx.helper.make_node("Cast", [half.name], [name], to=onnx.TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    onnx.save(model, graph)
