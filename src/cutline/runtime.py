"""Inference: a bundle's graphs on ONNX Runtime or OpenVINO; the only importer of either.

Every graph runs each call on one thread, and calls from several threads run beside each other.
So cores are kept busy by working on several pictures at once, never by splitting an operator:
that is faster where many small layers would wait for each other, and the number of threads cannot
change a result. Encoders take one image a call. Decoders take batches, whose size and composition
change no log-probability: see `_run_rows`.
"""

from __future__ import annotations

import math
import os
import platform
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cutline.bundle import Bundle
from cutline.errors import BundleError, EngineError, MissingExtraError, OptionError
from cutline.onnx_file import check_onnx

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

ENGINES = ("onnxruntime", "openvino")
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

_LEAST_ROWS = 5
_OPENVINO_TYPES = threading.Lock()


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for B images.

    Attributes:
        features: (B, N, D), a vector for each region of the grid.
        embedding: (B, E), one vector for the whole image.
        logits: (B, 1000), ImageNet logits; None if the encoder does not compute them.
        mid: (B, C, H, W), the input of a separate label graph; None if the bundle has none.
        boxes: (B, N, 4), left, top, right, bottom as fractions of the image, if the encoder is a
            detector.
    """

    features: Floats
    embedding: Floats
    logits: Floats | None = None
    mid: Floats | None = None
    boxes: Floats | None = None


@dataclass(frozen=True)
class State:
    """Where B images with K unfinished captions each stand.

    Attributes:
        shape: (B, K).
        memory: arrays (B, ...) by name, the same for all captions of an image.
        rows: arrays (B, K, ...) by name.
    """

    shape: tuple[int, int]
    memory: Arrays
    rows: Arrays


class Runtime:
    """A bundle's graphs, ready to run; safe to call from several threads. A `Stepper`.

    Args:
        bundle: what to run.
        engine: see `choose_engine`.
        threads: how many calls run at once; None is one for each core this process may use.

    Raises:
        OptionError: there is no such engine or precision, or less than one thread.
        MissingExtraError: the engine is not installed.
        EngineError: the engine refuses a graph.
        BundleError: a graph's inputs and outputs are not what a bundle's should be.
    """

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int | None = None) -> None:
        self.bundle = bundle
        self.engine, self._precision = choose_engine(engine)
        self.threads = cores() if threads is None else threads
        if self.threads < 1:
            raise OptionError(f"got threads={threads}; expected at least 1")
        self._encoder = self._open("encoder", ["pixels"], ["features", "embedding"])
        self._labels: _Graph | None = None
        self._opening = threading.Lock()
        self._start = self._open("start", ["features"], [])
        self._memory = [name for name in self._start.outputs if name.startswith("memory_")]
        self._rows = [name for name in self._start.outputs if name.startswith("state_")]
        following = [f"next_{name}" for name in self._rows]
        self._step = self._open(
            "step", ["tokens", *self._memory, *self._rows], ["logprobs", *following]
        )

    @property
    def precision(self) -> str:
        """The number type of products: "float32" or "bfloat16"."""
        return self._encoder.precision

    def encode(self, pixels: Floats) -> Encoded:
        """Encode images: pixels (B, 3, S, S), as the bundle's preprocessing returns them.

        A detector takes one image at a time, (1, 3, H, W).
        """
        output = self._encoder({"pixels": pixels})
        return Encoded(
            output["features"],
            output["embedding"],
            output.get("logits"),
            output.get("mid"),
            output.get("boxes"),
        )

    def logits(self, encoded: Encoded) -> Floats:
        """Return ImageNet logits (B, 1000) for encoded images.

        Bundles of format 1 compute them with a separate graph, which the first call loads.

        Raises:
            OptionError: the bundle has no labels.
            EngineError: the engine refuses the label graph.
            BundleError: the inputs and outputs of the label graph are wrong.
        """
        if encoded.logits is not None:
            return encoded.logits
        if encoded.mid is None:
            raise OptionError(f"got {self.bundle.name}, which has no labels; expected labels=0")
        with self._opening:
            labels = self._labels = self._labels or self._open("labels", ["mid"], ["logits"])
        return labels({"mid": encoded.mid})["logits"]

    def start(self, features: Floats) -> State:
        """The state before the first word, one row an image, from features (B, N, D)."""
        count = len(features)
        got = _run_rows(self._start, {"features": features}, count)
        return State(
            (count, 1),
            {name: got[name] for name in self._memory},
            {name: got[name] for name in self._rows},
        )

    def step(self, state: State, tokens: Ints) -> tuple[Floats, Floats | None, State]:
        """Append a token to every row: see `Stepper.step`."""
        feed = {"tokens": tokens, **state.memory, **state.rows}
        got = _run_rows(self._step, feed, tokens.size)
        rows = {name: got[f"next_{name}"] for name in self._rows}
        return got["logprobs"], got.get("attention"), State(state.shape, state.memory, rows)

    def reorder(self, state: State, rows: Ints) -> State:
        """Keep only these rows, in this order: see `Stepper.reorder`."""
        count, width = state.shape
        images = rows[:, 0] // width
        memory = state.memory
        if len(images) != count:  # images keep their order, so as many are the same ones
            memory = {name: array[images] for name, array in memory.items()}
        kept = {
            name: array.reshape(count * width, *array.shape[2:])[rows]
            for name, array in state.rows.items()
        }
        return State((rows.shape[0], rows.shape[1]), memory, kept)

    def _open(self, name: str, inputs: list[str], outputs: list[str]) -> _Graph:
        path = self.bundle.path(f"{name}.onnx")
        check_onnx(path)
        graph: _Graph
        if self.engine == "openvino":
            graph = _OpenVinoGraph(path, self.threads, self._precision)
        else:
            graph = _OnnxRuntimeGraph(path, self.threads)
        if set(graph.inputs) != set(inputs) or not set(outputs) <= set(graph.outputs):
            raise BundleError(
                f"{path}: got {', '.join(graph.inputs)} -> {', '.join(graph.outputs)}; "
                f"expected {', '.join(inputs)} -> {', '.join(outputs)}"
            )
        return graph


def engines() -> tuple[str, ...]:
    """The engines that are installed."""
    return tuple(engine for engine in ENGINES if find_spec(engine))


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_graph(path: Path, threads: int) -> OnnxGraph:
    """Open any ONNX file on ONNX Runtime; each call may use several threads.

    Args:
        path: the file.
        threads: processor threads for one call.

    Raises:
        EngineError: the file is no ONNX model, or it needs another engine.
    """
    return OnnxGraph(path, threads)


class _Graph(Protocol):
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def precision(self) -> str: ...

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> Arrays: ...


def _run_rows(graph: _Graph, feed: Mapping[str, NDArray[Any]], rows: int) -> Arrays:
    """Run a decoder graph for at least `_LEAST_ROWS` rows; images are repeated to fill them.

    For a few rows the engines use other kernels, which add the same numbers in another order. With
    more, the others change nothing in a row. These rows cost little, because the time of so few is
    that of reading the weights.

    Args:
        graph: the graph.
        feed: its inputs (B, ...).
        rows: B times the captions of each image.
    """
    if rows >= _LEAST_ROWS:
        return graph(feed)
    images = len(next(iter(feed.values())))
    filled = np.arange(math.ceil(_LEAST_ROWS * images / rows)) % images
    got = graph({name: array[filled] for name, array in feed.items()})
    return {name: array[:images] for name, array in got.items()}


class _OnnxRuntimeGraph:
    precision = "float32"

    def __init__(self, path: Path, threads: int, intra_op: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not _has_int8_products():
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime cannot load {path}: {error}") from error
        self._name = path.name
        self.inputs = tuple(port.name for port in self._session.get_inputs())
        self.outputs = tuple(port.name for port in self._session.get_outputs())

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            return dict(zip(self.outputs, self._session.run(None, feed), strict=True))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed on {self._name}: {error}") from error


class OnnxGraph(_OnnxRuntimeGraph):
    """Any ONNX model, with what its file says about itself.

    Attributes:
        shapes: dimensions of each input by name; a dynamic one is a name or None.
        metadata: the file's own entries by name.
    """

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__(path, threads, intra_op=threads)
        self.shapes = {port.name: tuple(port.shape) for port in self._session.get_inputs()}
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map


@cache
def _openvino_core() -> Any:
    """OpenVINO's core, kept until the process ends.

    On processors with AMX the core moves signal handlers to a stack of its own and frees it with
    itself; the next signal would end the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _given_name(names: Iterable[str]) -> str:
    """The name of a port in its file; other tensors of the same content are named as paths."""
    return min(names, key=lambda name: ("/" in name, name))


class _OpenVinoGraph:
    """A graph on OpenVINO; without a precision, it takes the processor's fastest one."""

    def __init__(self, path: Path, threads: int, precision: str | None) -> None:
        import openvino

        with _OPENVINO_TYPES:  # two threads whose first call of this coincides wait for each other
            openvino.Type.f32.to_dtype()
        settings: dict[str, Any] = {
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,
        }
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = _PRECISIONS[precision]
        try:
            self._model = _openvino_core().compile_model(path, "CPU", settings)
        except Exception as error:
            raise EngineError(f"OpenVINO cannot load {path}: {error}") from error
        hint = self._model.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = {short: name for name, short in _PRECISIONS.items()}.get(hint, hint)
        self._name = path.name
        self._idle: list[Any] = []
        self.inputs = tuple(_given_name(port.names) for port in self._model.inputs)
        self.outputs = tuple(_given_name(port.names) for port in self._model.outputs)

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        try:
            got = request.infer([feed[name] for name in self.inputs], share_inputs=True)
            return dict(zip(self.outputs, got.to_tuple(), strict=True))
        except Exception as error:
            raise EngineError(f"OpenVINO failed on {self._name}: {error}") from error
        finally:
            self._idle.append(request)


@cache
def _processor_flags() -> frozenset[str]:
    """The instruction sets of an x86 processor, as Linux names them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if platform.machine().lower() not in ("x86_64", "amd64") or not info.is_file():
        return frozenset()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def _has_int8_products() -> bool:
    """Whether the processor multiplies int8 without overflow.

    x86 processors without VNNI add pairs of products in 16 bits, where they saturate. ONNX Runtime
    then computes int8 graphs in float32, with the same rounding.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return bool(_processor_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"})


def choose_engine(engine: str) -> tuple[str, str | None]:
    """The engine and the precision that an option stands for.

    "auto" is OpenVINO, if it is installed, on processors that multiply matrices of bfloat16 (AMX):
    it captions 1.4 times as many images there. On other processors it is ONNX Runtime, which is
    as fast and starts sooner.

    Args:
        engine: "auto", "onnxruntime" or "openvino", which computes in the processor's fastest
            precision; "openvino:float32" and "openvino:bfloat16" choose one.

    Returns:
        The name, and the precision, None if the engine chooses it.

    Raises:
        OptionError: there is no such engine or precision.
        MissingExtraError: it is not installed.
    """
    if engine == "auto":
        return (
            "openvino" if _has_bfloat16_matrices() and "openvino" in engines() else ENGINES[0]
        ), None
    name, _, precision = engine.partition(":")
    if name not in ENGINES:
        raise OptionError(f"got engine {engine!r}; expected auto, {' or '.join(ENGINES)}")
    if ":" in engine and (name != "openvino" or precision not in _PRECISIONS):
        raise OptionError(
            f"got engine {engine!r}; expected onnxruntime, which computes in float32, or "
            f"openvino:{' or openvino:'.join(_PRECISIONS)}"
        )
    if find_spec(name) is None:
        raise MissingExtraError(f"the engine {name}", name)
    return name, precision or None


def _has_bfloat16_matrices() -> bool:
    return "amx_bf16" in _processor_flags()
