"""Object detectors that find boxes for region descriptions: ONNX files and torchvision's models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.boxes import Box
from cutline.errors import EngineError, MissingExtraError, OptionError, WeightsError
from cutline.regions.model import Detection
from cutline.runtime import cores, open_graph

SIDE_PX = 1333
"""The longer side of the image that a detector gets; larger images are reduced."""


class OnnxDetector:
    """A detector in an ONNX file of the form in which torchvision exports its detectors.

    Input: one tensor, float32, (3, H, W) or (1, 3, H, W), RGB from 0 to 1, H and W dynamic.
    Outputs: `boxes` (n, 4), left, top, right, bottom in pixels of the input; `labels` (n,), class
    ids; `scores` (n,), 0..1. Names of classes come from the metadata entry `names`, a JSON array
    or an object by id, or from a file NAME.txt beside NAME.onnx with one name a line.

    Args:
        path: the file.
        threads: processor threads; None is one for each core.
        min_score: boxes below this score are left out.

    Raises:
        OptionError: there is no such file.
        EngineError: the file is no ONNX model of that form.
    """

    def __init__(self, path: Path, *, threads: int | None = None, min_score: float = 0.3) -> None:
        if not path.is_file():
            raise OptionError(
                f"got detector {str(path)!r}; expected an ONNX file or torchvision:NAME"
            )
        self._graph = open_graph(path, threads or cores())
        self._min_score = min_score
        shape = self._graph.shapes.get(self._graph.inputs[0], ())
        if len(self._graph.inputs) != 1 or len(shape) not in (3, 4):
            raise EngineError(
                f"{path}: got inputs {', '.join(self._graph.inputs)}; expected one image of shape "
                "(3, H, W) or (1, 3, H, W)"
            )
        if not {"boxes", "scores"} <= set(self._graph.outputs):
            raise EngineError(
                f"{path}: got outputs {', '.join(self._graph.outputs)}; "
                "expected boxes, scores and, with names, labels"
            )
        self._batched = len(shape) == 4
        self._names = _names(self._graph.metadata.get("names"), path)

    def __call__(self, image: Image.Image) -> list[Detection]:
        """Find boxes in an RGB image.

        Raises:
            EngineError: inference failed.
        """
        pixels, scale = _pixels(image)
        feed = {self._graph.inputs[0]: pixels[None] if self._batched else pixels}
        found = self._graph(feed)
        boxes, scores = found["boxes"].reshape(-1, 4) / scale, found["scores"].ravel()
        labels = found.get("labels", np.full(len(scores), -1)).ravel()
        return _detections(boxes, labels, scores, self._names, self._min_score)


class TorchvisionDetector:
    """A detection model of torchvision, with weights from its hub.

    Args:
        name: such as "fasterrcnn_resnet50_fpn_v2".
        min_score: boxes below this score are left out.
        weights: "DEFAULT" downloads the published ones; None leaves the model untrained.

    Raises:
        MissingExtraError: torchvision is not installed.
        OptionError: torchvision has no detection model of this name.
        WeightsError: the weights cannot be downloaded.
    """

    def __init__(
        self, name: str, *, min_score: float = 0.3, weights: str | None = "DEFAULT"
    ) -> None:
        try:
            import torch
            from torchvision import models
        except ModuleNotFoundError as error:
            raise MissingExtraError("a detector of torchvision", "hub") from error
        names = models.list_models(module=models.detection)
        if name not in names:
            raise OptionError(f"got detector torchvision:{name}; expected {', '.join(names)}")
        published = models.get_model_weights(name).DEFAULT
        options = {"weights_backbone": None} if weights is None else {}
        try:
            self._net = models.get_model(name, weights=weights, **options).eval()
        except OSError as error:
            raise WeightsError(
                f"got no weights for torchvision:{name}: {published.url} cannot be reached"
            ) from error
        self._torch = torch
        self._names = dict(enumerate(published.meta["categories"]))
        self._min_score = min_score

    def __call__(self, image: Image.Image) -> list[Detection]:
        """Find boxes in an RGB image.

        Raises:
            EngineError: inference failed.
        """
        pixels, scale = _pixels(image)
        try:
            with self._torch.inference_mode():
                [found] = self._net([self._torch.from_numpy(pixels)])
        except RuntimeError as error:
            raise EngineError(f"torchvision failed: {error}") from error
        boxes = found["boxes"].numpy() / scale
        labels, scores = found["labels"].numpy(), found["scores"].numpy()
        return _detections(boxes, labels, scores, self._names, self._min_score)


def _pixels(image: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(3, H, W) from 0 to 1, and the factors by which boxes of it are too large: (4,)."""
    small = image.copy()
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    planes = np.asarray(small, np.float32).transpose(2, 0, 1) / np.float32(255)
    across, down = small.width / image.width, small.height / image.height
    return np.ascontiguousarray(planes), np.array([across, down, across, down])


def _detections(
    boxes: NDArray[Any],
    labels: NDArray[Any],
    scores: NDArray[Any],
    names: dict[int, str],
    min_score: float,
) -> list[Detection]:
    found = []
    for box, label, score in zip(boxes, labels, scores, strict=True):
        left, upper, right, lower = map(float, box)
        if score >= min_score and right > left and lower > upper:
            name = names.get(int(label), "")
            shape = Box(left, upper, right - left, lower - upper)
            found.append(Detection(shape, name, float(score)))
    return found


def _names(metadata: str | None, path: Path) -> dict[int, str]:
    """Names of classes by id."""
    beside = path.with_suffix(".txt")
    listed: Sequence[Any] | dict[str, Any] = []
    try:
        if metadata:
            listed = json.loads(metadata)
        elif beside.is_file():
            listed = beside.read_text(encoding="utf-8").splitlines()
        pairs = listed.items() if isinstance(listed, dict) else enumerate(listed)
        return {int(key): str(name) for key, name in pairs}
    except (ValueError, TypeError) as error:
        raise EngineError(
            f"{path}: got class names that cannot be read ({error}); expected a JSON array, "
            "or a text file with one name a line"
        ) from error
