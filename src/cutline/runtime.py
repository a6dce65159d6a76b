"""Inference engines: the graphs of a bundle, run by ONNX Runtime or OpenVINO, as a `Stepper`.

Work is spread over cores by images: every thread of a captioner runs its own batch through graphs
that each use one thread. So no core waits for another inside a layer, and decoding, encoding and
searching of different batches overlap.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cutline.bundle import Bundle
from cutline.errors import EngineError, MissingExtraError, OptionError

Arrays = dict[str, NDArray[Any]]
ENGINES = ("openvino", "onnxruntime")


class Graph(Protocol):
    """One loaded graph; safe to run from several threads at once."""

    inputs: Sequence[str]
    outputs: Sequence[str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Inputs by name -> outputs by name; the arrays are the caller's."""
        ...


class OnnxRuntimeGraph:
    """A graph in ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:  # noqa: D102
        values = self._session.run(None, dict(feeds))
        return dict(zip(self.outputs, values, strict=True))


class OpenVinoGraph:
    """A graph in OpenVINO on the CPU: a stream a thread, a request of its own for every caller."""

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        self._compiled = openvino.Core().compile_model(
            str(path),
            "CPU",
            {
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        self.inputs = [port.any_name for port in self._compiled.inputs]
        self.outputs = [port.any_name for port in self._compiled.outputs]
        self._own = threading.local()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:  # noqa: D102
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        values = self._own.request.infer(dict(feeds), share_inputs=True)
        return dict(zip(self.outputs, values.to_tuple(), strict=True))


@dataclass(frozen=True)
class Encoded:
    """What the encoder sees in a batch of images.

    Attributes:
        features: (B,N,D) float32, by region; what captions are told from.
        embedding: (B,D) float32, for the whole image; for comparing images.
        mid: (B,C,H,W) float32, halfway; what labels are told from.
    """

    features: NDArray[np.float32]
    embedding: NDArray[np.float32]
    mid: NDArray[np.float32]


@dataclass(frozen=True)
class State:
    """The decoder between two words: `memory` by image (B,...), `rows` by hypothesis (B,K,...)."""

    memory: Arrays
    rows: Arrays


class Runtime:
    """A bundle in an engine.

    Args:
        bundle: what to run.
        engine: "onnxruntime", "openvino", or "auto": OpenVINO if it is installed.
        threads: how many callers will run graphs at once.

    Raises:
        OptionError: there is no such engine.
        MissingExtraError: the engine is not installed.
        EngineError: the engine cannot load or run a graph.
    """

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int = 1) -> None:
        if engine == "auto":
            engine = next(e for e in ENGINES if importlib.util.find_spec(e))
        if engine not in ENGINES:
            raise OptionError(f"got engine {engine!r}; expected auto or one of {', '.join(ENGINES)}")
        if not importlib.util.find_spec(engine):
            raise MissingExtraError(f"the engine {engine}", engine)
        self.bundle, self.engine, self._threads = bundle, engine, threads
        self._encoder, self._start, self._step = map(self._open, ("encoder", "start", "step"))
        self._state = [name for name in self._step.inputs if name.startswith("state_")]
        self._memory = [name for name in self._step.inputs if name.startswith("memory_")]
        self._lock = threading.Lock()

    def encode(self, pixels: NDArray[np.float32]) -> Encoded:
        """pixels (B,3,S,S) -> features, embedding and the halfway grid."""
        return Encoded(**self._run(self._encoder, {"pixels": pixels}))

    def logits(self, mid: NDArray[np.float32]) -> NDArray[np.float32]:
        """The encoder's halfway grid (B,C,H,W) -> ImageNet logits (B,1000)."""
        with self._lock:
            graph = self._labels
        return self._run(graph, {"mid": mid})["logits"]

    def start(self, features: NDArray[np.float32]) -> State:
        """features (B,N,D) -> the state before the first word, one row an image."""
        values = self._run(self._start, {"features": features})
        return State(
            {name: values[name] for name in self._memory},
            {name: values[name] for name in self._state},
        )

    def step(
        self, state: State, tokens: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], State]:
        """tokens (B,K) -> logprobs (B,K,V) in nats, attention (B,K,N), the next state."""
        values = self._run(self._step, {"tokens": tokens, **state.memory, **state.rows})
        rows = {name: values[f"next_{name}"] for name in self._state}
        return values["logprobs"], values["attention"], State(state.memory, rows)

    def reorder(self, state: State, rows: NDArray[np.int64]) -> State:
        """rows (B',K') of flat row indices -> the state with just these rows, in this order."""
        images, beams = next(iter(state.rows.values())).shape[:2]
        memory = state.memory
        if len(rows) != images:
            kept = rows[:, 0] // beams
            memory = {name: array[kept] for name, array in memory.items()}
        taken = {
            name: array.reshape(images * beams, *array.shape[2:])[rows]
            for name, array in state.rows.items()
        }
        return State(memory, taken)

    @cached_property
    def _labels(self) -> Graph:
        return self._open("labels")

    def _open(self, name: str) -> Graph:
        kind = OpenVinoGraph if self.engine == "openvino" else OnnxRuntimeGraph
        path = self.bundle.path / f"{name}.onnx"
        try:
            return kind(path, self._threads)
        except Exception as error:
            raise EngineError(f"{self.engine} cannot load {path}: {error}") from error

    def _run(self, graph: Graph, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            return graph.run(feeds)
        except Exception as error:
            shapes = {name: array.shape for name, array in feeds.items()}
            raise EngineError(f"{self.engine} failed on inputs {shapes}: {error}") from error
