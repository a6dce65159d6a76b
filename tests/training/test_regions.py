from __future__ import annotations

import base64
import os
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

from cutline.data import Collection, Example
from cutline.errors import DataError, ImageError, WeightsError
from cutline.training.detectors import load_detector
from cutline.training.regions import detect, regions

IMAGES = [
    Example(Path(name), ("a caption",))
    for name in ("COCO_val2014_000000000042.jpg", "1000092795.jpg", "odd name.jpg")
]
IDS = ["42", "1000092795", "odd name"]
NUMBERS = [3, 5, 40]


def made(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    boxes = rng.uniform(0, 1, (number, 4)) * [100, 50, 100, 50]
    return rng.normal(size=(number, 8)).astype(np.float32), boxes.astype(np.float32)


def tsv(path: Path) -> Path:
    lines = []
    for name, number in reversed(list(zip(IDS, NUMBERS, strict=True))):
        packed = [base64.b64encode(values).decode() for values in made(number)[::-1]]
        lines.append("\t".join([name, "100", "50", str(number), *packed]))
    path.write_text("\n".join(lines) + "\n")
    return path


def npz(folder: Path) -> Path:
    folder.mkdir()
    for name, number in zip(IDS, NUMBERS, strict=True):
        features, boxes = made(number)
        turned = features.T if number == 5 else features
        np.savez(folder / f"{name}.npz", x=turned, bbox=boxes, image_w=100, image_h=50)
    return folder


@pytest.mark.parametrize("form", [tsv, npz])
def test_published_regions_are_read_in_the_order_of_the_images(form: Any, tmp_path: Path) -> None:
    path = form(tmp_path / "regions")
    found = regions(path, IMAGES, tmp_path / "kept")
    assert (found.features.shape, found.boxes.shape) == ((3, 36, 8), (3, 36, 4))
    for i, number in enumerate(NUMBERS):
        features, boxes = made(number)
        rows = np.arange(36) % number
        np.testing.assert_allclose(found.features[i], features[rows], atol=2e-3)
        np.testing.assert_allclose(found.boxes[i], boxes[rows] / [100, 50, 100, 50], atol=1e-3)
    assert regions(path, IMAGES[1:], tmp_path / "kept", count=2).features.shape == (2, 2, 8)


def test_files_that_were_written_anew_are_read_anew(tmp_path: Path) -> None:
    folder = npz(tmp_path / "regions")
    regions(folder, IMAGES, tmp_path / "kept")
    np.savez(folder / "42.npz", features=np.ones((3, 8)), boxes=np.ones((3, 4)))
    os.utime(folder / "42.npz", (2e9, 2e9))
    assert (regions(folder, IMAGES, tmp_path / "kept").features[0] == 1).all()


def test_what_is_not_in_the_files_is_named(tmp_path: Path) -> None:
    absent = [Example(Path("absent7.jpg"), ("gone",))]
    with pytest.raises(DataError, match=r"got no line for absent7\.jpg"):
        regions(tsv(tmp_path / "a.tsv"), absent, tmp_path)
    with pytest.raises(DataError, match=r"got no absent7\.npz or 7\.npz"):
        regions(npz(tmp_path / "b"), absent, tmp_path)
    (tmp_path / "c.tsv").write_text("id\tboxes\n")
    with pytest.raises(DataError, match=r"got 2 columns .* expected image_id, image_w"):
        regions(tmp_path / "c.tsv", IMAGES, tmp_path)
    with pytest.raises(DataError, match=r"expected a \.tsv or a folder"):
        regions(tmp_path / "absent", IMAGES, tmp_path)


class Trunk(nn.Module):
    """The least that can stand for a feature pyramid."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 8, 1)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"0": self.conv(pixels).relu()}


def detector() -> Any:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    return FasterRCNN(
        Trunk(), 5, min_size=64, max_size=64, rpn_anchor_generator=anchors,
        box_score_thresh=0.0, box_detections_per_img=6,
    )  # fmt: skip


def test_regions_are_detected_once_and_bad_pictures_named(
    colours: Collection, tmp_path: Path
) -> None:
    examples = colours.split("dev")
    examples[2].image.write_bytes(b"no picture")
    net = detector()
    problems: dict[int, ImageError] = {}
    found = detect(examples, tmp_path, count=6, detector=net, unreadable=problems.setdefault)
    assert problems.keys() == {2}
    assert (found.features.shape, found.boxes.shape) == ((6, 6, 1024), (6, 6, 4))
    good = np.delete(np.arange(6), 2)
    boxes = found.boxes[good].astype(np.float32)
    assert ((boxes >= 0) & (boxes <= 1.001)).all()
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert np.isfinite(found.features[good]).all()
    assert np.isnan(found.features[2]).all()
    assert (found.features[0] != found.features[1]).any()
    net.backbone.forward = None
    again = detect(examples, tmp_path, count=6, detector=net, unreadable=problems.setdefault)
    np.testing.assert_array_equal(found.features, again.features)


def test_without_weights_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(WeightsError, match=r"https://download\.pytorch\.org/.* --weights FILE"):
        load_detector()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth, which does not fit fasterrcnn"):
        load_detector(tmp_path / "weights.pth")


def test_an_empty_split_is_said(tmp_path: Path) -> None:
    (tmp_path / "regions").mkdir()
    with pytest.raises(DataError, match="got no images for the regions"):
        regions(tmp_path / "regions", [], tmp_path / "kept")
