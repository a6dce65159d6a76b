"""A bundle of a few kilobytes that keeps the bundle contract, and the same model in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cutline.bundle import Bundle, DataEntry, Manifest, VocabularyEntry, write_bundle
from cutline.preprocess import Transform
from cutline.text import Vocabulary

NAME = "tiny-v1"
SIDE_PX, GRID, WIDTH = 24, 3, 8
TRANSFORM = Transform(side_px=SIDE_PX, via_px=32)
VOCABULARY = Vocabulary(
    "<pad> <bos> <eos> <unk> a the dog cat bird man woman child runs sits sleeps jumps on under "
    "near grass water sand red green 's".split()
)
LABELS = tuple(f"thing {number}" for number in range(1000))
SEARCH = {"beam_size": 3, "max_tokens": 8}
PRIOR = np.linspace(0.5, 0.01, len(VOCABULARY), dtype=np.float32)

_random = np.random.default_rng(7)


def _weights(*shape: int, spread: float = 1.0) -> NDArray[np.float32]:
    return (_random.standard_normal(shape) * spread).astype(np.float32)


PROJECT = _weights(WIDTH, 3, 1, 1, spread=2.0)
EMBED, LABEL = _weights(WIDTH, 1280), _weights(WIDTH, 1000)
KEYS, REGIONS = _weights(WIDTH, WIDTH), _weights(WIDTH, WIDTH)
WORDS = _weights(len(VOCABULARY), WIDTH)
NEXT = _weights(3 * WIDTH, WIDTH, spread=0.5)
OUTPUT = _weights(WIDTH, len(VOCABULARY), spread=1.5)
WEARY = np.eye(len(VOCABULARY), dtype=np.float32)[[Vocabulary.eos]]  # (1,V): longer, likelier eos


def build(
    folder: Path, *, name: str = NAME, word_bias: float = 0.0, search: dict[str, Any] | None = None
) -> Bundle:
    """Write the tiny bundle into a folder."""
    return write_bundle(
        folder / name, files(), manifest(name, word_bias, SEARCH if search is None else search)
    )


def files() -> dict[str, bytes | Path]:
    """All of its files but the manifest."""
    prior = BytesIO()
    np.save(prior, PRIOR)
    return {
        "encoder.onnx": encoder(),
        "labels.onnx": labels(),
        "start.onnx": start(),
        "step.onnx": step(),
        "vocabulary.txt": "".join(f"{word}\n" for word in VOCABULARY.words).encode(),
        "labels.txt": "".join(f"{label}\n" for label in LABELS).encode(),
        "prior.npy": prior.getvalue(),
        "README.md": b"# Tiny\n\nIt knows nothing.\n",
    }


def manifest(name: str = NAME, word_bias: float = 0.0, search: dict[str, Any] = SEARCH) -> Manifest:
    return Manifest(
        name=name,
        created="2030-12-31",
        summary="Says words about pictures.",
        preprocessing=TRANSFORM,
        grid=(GRID, GRID),
        vocabulary=VocabularyEntry(len(VOCABULARY), VOCABULARY.checksum),
        search=search,
        word_bias=word_bias,
        recipe={"seed": 7},
        data=DataEntry("none", "CC0-1.0", "0" * 64, 0, 0),
        licence="Apache-2.0",
        parameters={"encoder": PROJECT.size},
        scores={},
        speed={},
    )


def encoder(*, labels: bool = False) -> bytes:
    """Average pool to the grid, a 1x1 convolution, tanh; with `labels`, the logits as well."""
    side = SIDE_PX // GRID
    logits = [
        helper.make_node("ReduceMean", ["mid"], ["middle"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["middle", "label"], ["logits"]),
    ]
    return _graph(
        [
            helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[side] * 2,
                             strides=[side] * 2),
            helper.make_node("Conv", ["pooled", "project"], ["convolved"]),
            helper.make_node("Tanh", ["convolved"], ["mid"]),
            helper.make_node("Reshape", ["mid", "flat"], ["columns"]),
            helper.make_node("Transpose", ["columns"], ["features"], perm=[0, 2, 1]),
            helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "embed"], ["embedding"]),
            *(logits if labels else []),
        ],
        {"pixels": ("B", 3, SIDE_PX, SIDE_PX)},
        {"features": ("B", GRID**2, WIDTH), "embedding": ("B", 1280),
         **({"logits": ("B", 1000)} if labels else {"mid": ("B", WIDTH, GRID, GRID)})},
        {"project": PROJECT, "embed": EMBED, "flat": np.array([0, WIDTH, -1]),
         **({"label": LABEL} if labels else {})},
    )  # fmt: skip


def labels() -> bytes:
    return _graph(
        [
            helper.make_node("ReduceMean", ["mid"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "label"], ["logits"]),
        ],
        {"mid": ("B", WIDTH, GRID, GRID)},
        {"logits": ("B", 1000)},
        {"label": LABEL},
    )


def start() -> bytes:
    return _graph(
        [
            helper.make_node("MatMul", ["features", "keys"], ["memory_keys"]),
            helper.make_node("MatMul", ["features", "regions"], ["memory_regions"]),
            helper.make_node("ReduceMean", ["features"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Tanh", ["mean"], ["state_hidden"]),
            helper.make_node("ReduceMax", ["features"], ["most"], axes=[1, 2], keepdims=1),
            helper.make_node("Sub", ["most", "most"], ["state_age"]),
        ],
        {"features": ("B", GRID**2, WIDTH)},
        {"memory_keys": ("B", GRID**2, WIDTH), "memory_regions": ("B", GRID**2, WIDTH),
         "state_hidden": ("B", 1, WIDTH), "state_age": ("B", 1, 1)},
        {"keys": KEYS, "regions": REGIONS},
    )  # fmt: skip


def step() -> bytes:
    """A recurrent step: look at the regions, mix with word and state, grow weary."""
    vocabulary = len(VOCABULARY)
    return _graph(
        [
            helper.make_node("Gather", ["words", "tokens"], ["word"]),
            helper.make_node("Add", ["word", "state_hidden"], ["query"]),
            helper.make_node("Transpose", ["memory_keys"], ["across"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["query", "across"], ["energy"]),
            helper.make_node("Softmax", ["energy"], ["attention"], axis=-1),
            helper.make_node("MatMul", ["attention", "memory_regions"], ["context"]),
            helper.make_node("Concat", ["word", "context", "state_hidden"], ["all"], axis=-1),
            helper.make_node("MatMul", ["all", "next"], ["mixed"]),
            helper.make_node("Tanh", ["mixed"], ["next_state_hidden"]),
            helper.make_node("Add", ["state_age", "one"], ["next_state_age"]),
            helper.make_node("MatMul", ["next_state_hidden", "output"], ["told"]),
            helper.make_node("MatMul", ["state_age", "weary"], ["wearied"]),
            helper.make_node("Add", ["told", "wearied"], ["logits"]),
            helper.make_node("LogSoftmax", ["logits"], ["logprobs"], axis=-1),
        ],
        {"tokens": ("B", "K"), "memory_keys": ("B", GRID**2, WIDTH),
         "memory_regions": ("B", GRID**2, WIDTH), "state_hidden": ("B", "K", WIDTH),
         "state_age": ("B", "K", 1)},
        {"logprobs": ("B", "K", vocabulary), "attention": ("B", "K", GRID**2),
         "next_state_hidden": ("B", "K", WIDTH), "next_state_age": ("B", "K", 1)},
        {"words": WORDS, "next": NEXT, "output": OUTPUT, "weary": WEARY,
         "one": np.ones(1, np.float32)},
    )  # fmt: skip


def pictures(count: int) -> list[NDArray[np.uint8]]:
    """Pictures of blocks in random colours, no two alike."""
    random = np.random.default_rng(count)
    blocks = random.integers(0, 256, (count, 3, 3, 3), dtype=np.uint8)
    return [np.kron(block, np.ones((16, 16, 1), np.uint8)) for block in blocks]


@dataclass(frozen=True)
class Memory:
    keys: NDArray[Any]
    regions: NDArray[Any]
    hidden: NDArray[Any]
    age: NDArray[Any]


class Reference:
    """The tiny model in NumPy, float64, without an engine."""

    def encode(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        side = SIDE_PX // GRID
        pooled = pixels.astype(float).reshape(-1, 3, GRID, side, GRID, side).mean((3, 5))
        mid = np.tanh(np.einsum("wc,bcyx->bwyx", PROJECT[:, :, 0, 0], pooled))
        features = mid.reshape(len(mid), WIDTH, -1).transpose(0, 2, 1)
        return features, features.mean(1) @ EMBED, mid

    def logits(self, mid: NDArray[Any]) -> NDArray[Any]:
        logits: NDArray[Any] = mid.mean((2, 3)) @ LABEL
        return logits

    def start(self, features: NDArray[Any]) -> Memory:
        hidden = np.tanh(features.mean(1, keepdims=True))
        return Memory(features @ KEYS, features @ REGIONS, hidden, np.zeros((len(hidden), 1, 1)))

    def step(
        self, state: Memory, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[Any], Memory]:
        word = WORDS[tokens]
        energy = (word + state.hidden) @ state.keys.transpose(0, 2, 1)
        attention = np.exp(energy - energy.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        context = attention @ state.regions
        hidden = np.tanh(np.concatenate([word, context, state.hidden], -1) @ NEXT)
        logits = hidden @ OUTPUT + state.age @ WEARY
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return logprobs, attention, Memory(state.keys, state.regions, hidden, state.age + 1)

    def reorder(self, state: Memory, rows: NDArray[np.int64]) -> Memory:
        images, beams = np.divmod(rows, state.hidden.shape[1])
        kept = images[:, 0]
        return Memory(
            state.keys[kept],
            state.regions[kept],
            state.hidden[images, beams],
            state.age[images, beams],
        )


def _graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[str | int, ...]],
    outputs: dict[str, tuple[str | int, ...]],
    constants: dict[str, NDArray[Any]],
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name == "tokens" else TensorProto.FLOAT, shape
            )
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
