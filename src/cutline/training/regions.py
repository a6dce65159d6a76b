"""Features of salient regions: read from bottom-up-attention files, or detected."""

from __future__ import annotations

import base64
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cutline.data import Example
from cutline.errors import DataError
from cutline.image import load_image
from cutline.training.detectors import COUNT, DETECTOR, DetectorEncoder, load_detector
from cutline.training.encoders import checksum
from cutline.training.features import DEVICE, FeatureStore, Progress, Unreadable

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
    name: str = DETECTOR,
    weights: Path | None = None,
    count: int = COUNT,
    side_px: int = 0,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
    detector: Any = None,
) -> Regions:
    """Find regions with torchvision's Faster R-CNN (Ren et al., 2015), and their features.

    The boxes are the most confident ones after non-maximum suppression by class, their features
    the output of the box head (D = 1,024 for torchvision's detectors). The published weights were
    trained on COCO's 80 classes, the published features on 1,600 classes of Visual Genome.

    Args:
        examples: whose images.
        folder: the cache, as of `features.extract_features`.
        name: one of `detectors.DETECTORS`.
        weights: the detector's state dict; by default downloaded from torchvision's hub.
        count: K, how many regions of each image.
        side_px: shorter side of the image; 0 takes the detector's own.
        progress: called with the number of images done since the last call.
        unreadable: called for each unreadable image; without it the first one raises.
        detector: one that is loaded already.

    Raises:
        WeightsError: there are no weights, or they do not fit.
        ImageError: an image is unreadable, and there is no `unreadable`.
    """
    net = detector or load_detector(weights, count, name)
    encoder = DetectorEncoder(net, count, side_px).eval().to(DEVICE)
    transform = encoder.transform
    what = {
        "regions": name,
        "weights": checksum(net),
        "count": count,
        "transform": asdict(transform),
    }

    def decode(example: Example) -> Floats:
        return transform(load_image(example.image, around_px=transform.via_px))

    @torch.inference_mode()
    def forward(batch: list[Floats]) -> Floats:
        rows = []
        for pixels in batch:
            features, _, boxes = encoder(torch.from_numpy(pixels)[None].to(DEVICE))
            rows.append(torch.cat([features, boxes], -1)[0].cpu().numpy())
        return np.stack(rows)

    store = FeatureStore(folder, what, examples, (count, encoder.width + 4))
    return _parted(store.fill(decode, forward, progress, unreadable))


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
