"""Features of salient regions: read from bottom-up-attention files, or detected."""

from __future__ import annotations

import base64
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.models import detection

from cutline.data import Example
from cutline.errors import DataError, WeightsError
from cutline.image import load_image
from cutline.training.encoders import checksum
from cutline.training.features import DEVICE, FeatureStore, Progress, Unreadable

COUNT = 36
"""Regions per image, as in Anderson et al. (2018), section 3.1."""

DETECTOR = "fasterrcnn_resnet50_fpn_v2"

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of many images.

    An image with fewer regions than asked for has them repeated, so there is nothing to mask.
    """

    features: NDArray[np.float16]
    """(I, K, D), memory-mapped; NaN for an image that could not be read."""
    boxes: NDArray[np.float16]
    """(I, K, 4): left, top, right, bottom as fractions of width and height; NaN if unknown."""


def regions(
    path: Path,
    examples: Sequence[Example],
    folder: Path,
    *,
    count: int = COUNT,
    progress: Progress | None = None,
) -> Regions:
    """Read bottom-up-attention features (Anderson et al., 2018) from where they were published.

    Args:
        path: a .tsv with the columns image_id, image_w, image_h, num_boxes, boxes, features
            (base64 of float32), or a folder with one .npz for each image.
        examples: whose images; an image's id is its file's name without ending, or the number that
            this ends with, as in COCO_val2014_000000391895.
        folder: where the features are kept once read.
        count: K, how many regions of each image.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: an image has no regions there, or the file is of another form.
    """
    if path.is_dir():
        find = _in_folder(path)
    elif path.is_file():
        find = _in_tsv(path)
    else:
        raise DataError(f"got {path}; expected a .tsv or a folder of .npz files")

    def decode(example: Example) -> Floats:
        return _fitted(*find(example), count)

    if not examples:
        raise DataError(f"got no images for the regions in {path}; expected at least one")
    width = decode(examples[0]).shape[1]
    what: dict[str, Any] = {"regions": path.name, "bytes": path.stat().st_size, "count": count}
    if path.is_dir():
        what["changed_ns"] = max(file.stat().st_mtime_ns for file in path.glob("*.npz"))
    store = FeatureStore(folder, what, examples, (count, width))
    return _parted(store.fill(decode, np.stack, progress))


def detect(
    examples: Sequence[Example],
    folder: Path,
    *,
    weights: Path | None = None,
    count: int = COUNT,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
    detector: Any = None,
) -> Regions:
    """Find regions with torchvision's Faster R-CNN (Ren et al., 2015) and describe each.

    The boxes are the likeliest ones after non-maximum suppression by class, their features (D =
    1,024) the output of the box head. The detector was trained on COCO's 80 classes, the published
    files on 1,600 classes of Visual Genome.

    Args:
        examples: whose images.
        folder: the cache, as of `features.extract_features`.
        weights: the detector's state dict; by default fetched from torchvision's hub.
        count: K, how many regions of each image.
        progress: called with the number of images done since the last call.
        unreadable: called for each unreadable image; without it the first one raises.
        detector: one that is loaded already.

    Raises:
        WeightsError: there are no weights to be had, or they do not fit.
        ImageError: an image is unreadable, and there is no `unreadable`.
    """
    net: Any = (detector or load_detector(weights, count)).eval().to(DEVICE)
    what = {"regions": DETECTOR, "weights": checksum(net), "count": count}
    width = net.roi_heads.box_predictor.cls_score.in_features

    def decode(example: Example) -> NDArray[np.uint8]:
        return np.array(load_image(example.image, around_px=800))

    def forward(batch: list[NDArray[np.uint8]]) -> Floats:
        return np.stack([_fitted(*_described(net, pixels), count) for pixels in batch])

    store = FeatureStore(folder, what, examples, (count, width + 4))
    return _parted(store.fill(decode, forward, progress, unreadable))


def load_detector(weights: Path | None = None, count: int = COUNT) -> nn.Module:
    """Faster R-CNN with a ResNet-50 pyramid, version 2 of torchvision, pretrained.

    Raises:
        WeightsError: there are no weights to be had, or they do not fit.
    """
    hub = detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1
    try:
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        else:
            state = hub.get_state_dict(progress=True, check_hash=True)
        net: nn.Module = detection.fasterrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, box_score_thresh=0.0, box_detections_per_img=count
        )
        net.load_state_dict(state)
    except (OSError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        if weights is not None:
            raise WeightsError(
                f"got {weights}, which does not fit {DETECTOR}: {str(error).partition(chr(10))[0]}"
            ) from error
        raise WeightsError(
            f"got no weights for {DETECTOR}: {hub.url} is out of reach; fetch it on a machine with "
            "a network and name it with --weights FILE"
        ) from error
    return net


def _described(net: Any, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """(H,W,3) -> features (n,D) and boxes (n,4) as fractions, likeliest first."""
    with torch.inference_mode():
        image = torch.from_numpy(pixels).to(DEVICE).permute(2, 0, 1).float() / 255
        images, _ = net.transform([image])
        maps = net.backbone(images.tensors)
        proposals, _ = net.rpn(images, maps)
        found, _ = net.roi_heads(maps, proposals, images.image_sizes)
        height, width = images.image_sizes[0]
        whole = torch.tensor([[0.0, 0.0, width, height]], device=DEVICE)
        boxes = found[0]["boxes"] if len(found[0]["boxes"]) else whole
        heads = net.roi_heads
        features = heads.box_head(heads.box_roi_pool(maps, [boxes], images.image_sizes))
        return features.cpu().numpy(), (boxes / whole[:, [2, 3, 2, 3]]).cpu().numpy()


def _in_folder(folder: Path) -> Callable[[Example], tuple[Floats, Floats]]:
    def find(example: Example) -> tuple[Floats, Floats]:
        for name in _ids(example):
            if (file := folder / f"{name}.npz").is_file():
                return _read_npz(file)
        names = " or ".join(f"{name}.npz" for name in _ids(example))
        raise DataError(f"got no {names} in {folder}; expected the regions of {example.name}")

    return find


def _read_npz(file: Path) -> tuple[Floats, Floats]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            named: dict[str, Any] = {name.lower(): arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"got {file}, which is no .npz: {error}") from error
    features = next((named[k] for k in ("features", "feat", "x") if k in named), None)
    if features is None or features.ndim != 2:
        raise DataError(f"got arrays {', '.join(named)} in {file}; expected features (n,D), boxes")
    boxes = next((named[k] for k in ("boxes", "bbox") if k in named), None)
    if boxes is None:
        return features, np.full((len(features), 4), np.nan, np.float32)
    if len(features) != len(boxes) == features.shape[1]:
        features = features.T
    size = [float(named[k]) for k in ("image_w", "image_h") if k in named]
    scale = np.array(2 * size if len(size) == 2 else boxes.max(0)[[2, 3, 2, 3]], np.float32)
    return features.astype(np.float32), boxes.astype(np.float32) / scale


def _in_tsv(path: Path) -> Callable[[Example], tuple[Floats, Floats]]:
    """Where each image's line begins, so that images are found in any order."""
    places: dict[str, int] = {}
    with path.open("rb") as file:
        while line := file.readline():
            name, *rest = line.split(b"\t", 5)
            if len(rest) != 5:
                raise DataError(
                    f"got {1 + len(rest)} columns in {path}; expected image_id, image_w, image_h, "
                    "num_boxes, boxes, features"
                )
            places[name.decode()] = file.tell() - len(line)

    def find(example: Example) -> tuple[Floats, Floats]:
        place = next((places[name] for name in _ids(example) if name in places), None)
        if place is None:
            raise DataError(f"got no line for {example.name} in {path}; expected its regions")
        with path.open("rb") as file:
            file.seek(place)
            _, width, height, number, boxes, features = file.readline().rstrip().split(b"\t")
        size = np.array([float(width), float(height)] * 2, np.float32)
        return _floats(features, int(number)), _floats(boxes, int(number)) / size

    return find


def _floats(text: bytes, rows: int) -> Floats:
    try:
        return np.frombuffer(base64.b64decode(text), np.float32).reshape(rows, -1)
    except ValueError as error:
        raise DataError(f"got regions that are no {rows} rows of float32: {error}") from error


def _ids(example: Example) -> Iterator[str]:
    stem = Path(example.name).stem
    yield stem
    if digits := re.search(r"\d+$", stem):
        yield str(int(digits[0]))


def _fitted(features: Floats, boxes: Floats, count: int) -> Floats:
    """(n,D) and (n,4) -> (count, D + 4): the first ones, or all of them again and again."""
    chosen = np.arange(count) % len(features)
    return np.concatenate([features[chosen], boxes[chosen]], axis=1, dtype=np.float32)


def _parted(rows: NDArray[np.float16]) -> Regions:
    return Regions(rows[..., :-4], rows[..., -4:])
