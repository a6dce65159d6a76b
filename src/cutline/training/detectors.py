"""Detectors whose regions captioners attend to, as encoders: pixels in, features of boxes out.

`DetectorEncoder` is the one implementation behind the features of a run, its bundle's graph and the
comparison of both.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from cutline.errors import WeightsError
from cutline.preprocess import DetectorTransform
from cutline.training.encoders import EncoderOptions

COUNT = 36
"""Regions per image, as in Anderson et al. (2018), section 3.1."""

DETECTOR = "fasterrcnn_resnet50_fpn_v2"
"""The detector of a run whose recipe names none."""

SMALL = "fasterrcnn_small"
"""A Faster R-CNN with four convolutions, to train on synthetic images."""

TORCHVISION = (
    DETECTOR,
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)
DETECTORS = (*TORCHVISION, SMALL)


def file_checksum(options: EncoderOptions) -> str:
    """SHA-256 of the file with the detector's weights; "" if the recipe names none.

    Raises:
        WeightsError: it cannot be read.
    """
    if not options.weights:
        return ""
    try:
        with Path(options.weights).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"got encoder.weights {options.weights}: {error.strerror}; expected the file that the "
            "run was trained with"
        ) from error


def detector_name(backbone: str) -> str:
    """The detector of a recipe: its backbone, if that is one, else `DETECTOR`."""
    return backbone if backbone in DETECTORS else DETECTOR


def build_detector(name: str, classes: int = 91, count: int = COUNT) -> Any:
    """An untrained Faster R-CNN (Ren et al., 2015) that returns its `count` most confident boxes.

    Args:
        name: one of `DETECTORS`.
        classes: with the background.
        count: boxes of each image after non-maximum suppression.
    """
    options: dict[str, Any] = {"box_score_thresh": 0.0, "box_detections_per_img": count}
    if name == SMALL:
        return small_detector(classes, **options)
    make = getattr(detection, name)
    return make(weights=None, weights_backbone=None, num_classes=classes, **options)


def small_detector(classes: int, **options: Any) -> detection.FasterRCNN:
    """A detector for small images of simple objects: one feature map of stride 8, boxes of 256."""
    width = 64
    anchors = AnchorGenerator(((12, 20, 32, 48),), ((0.5, 1.0, 2.0),))
    pool = MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2)
    head = detection.faster_rcnn.TwoMLPHead(width * 25, 256)
    net: detection.FasterRCNN = detection.FasterRCNN(
        _SmallTrunk(width), None, min_size=128, max_size=256,
        image_mean=[0.5] * 3, image_std=[0.25] * 3, rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=400, rpn_post_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=200, rpn_post_nms_top_n_test=100,
        box_roi_pool=pool, box_head=head, box_batch_size_per_image=64,
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(256, classes), **options,
    )  # fmt: skip
    return net


class _SmallTrunk(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = width
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 24, 2), (24, 48, 2), (48, width, 2), (width, width, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(8, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return {"0": self.layers(pixels)}


def load_detector(weights: Path | None = None, count: int = COUNT, name: str = DETECTOR) -> Any:
    """A pretrained detector.

    Args:
        weights: its state dict; by default downloaded from torchvision's hub.
        count: boxes of each image.
        name: one of `DETECTORS`.

    Raises:
        WeightsError: there are no weights, or they do not fit.
    """
    hub = None if name == SMALL else detection_weights(name)
    try:
        if weights is not None:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        elif hub is None:
            raise OSError("it has no published weights")
        else:
            state = hub.get_state_dict(progress=True, check_hash=True)
        classes = len(state["roi_heads.box_predictor.cls_score.weight"])
        net = build_detector(name, classes, count)
        net.load_state_dict(state)
    except (OSError, RuntimeError, TypeError, LookupError, pickle.UnpicklingError) as error:
        if weights is not None:
            raise WeightsError(
                f"got {weights}, which does not fit {name}: {str(error).partition(chr(10))[0]}"
            ) from error
        if hub is None:
            raise WeightsError(
                f"got no weights for {name}; expected --weights FILE or encoder.weights"
            ) from error
        raise WeightsError(
            f"got no weights for {name}: {hub.url} cannot be reached; download it on a machine "
            "with a network and name it with --weights FILE or encoder.weights"
        ) from error
    return net.eval()


def detection_weights(name: str) -> Any:
    """The entry of a detector's published weights in torchvision's hub."""
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT


class DetectorEncoder(nn.Module):
    """Pixels (1,3,H,W) from 0 to 1 -> features (1,K,D), embedding (1,D) and boxes (1,K,4).

    Boxes are the detector's most confident ones, left, top, right, bottom as fractions of the
    image; features are the output of its box head for them. An image with fewer boxes has them
    repeated, an image without boxes is one box. The embedding is the mean of the features.

    Args:
        net: a Faster R-CNN of torchvision.
        count: K.
        side_px: shorter side of the image; 0 takes the detector's own.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: Any, count: int = COUNT, side_px: int = 0) -> None:
        super().__init__()
        self.net, self.count = net, count
        own = net.transform
        shorter = side_px or int(own.min_size[0])
        longer = max(shorter, round(shorter * own.max_size / own.min_size[0]))
        self.transform = DetectorTransform(shorter, longer)
        self.width: int = net.roi_heads.box_predictor.cls_score.in_features
        for name, values in (("mean", own.image_mean), ("deviation", own.image_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        images = (pixels - self.mean) / self.deviation
        size = (pixels.shape[2], pixels.shape[3])
        maps = self.net.backbone(images)
        if isinstance(maps, Tensor):
            maps = {"0": maps}
        proposals, _ = self.net.rpn(ImageList(images, [size]), maps)
        heads = self.net.roi_heads
        found, _ = heads(maps, proposals, [size])
        height, width = (torch.as_tensor(side, dtype=pixels.dtype) for side in size)
        scale = torch.stack([width, height, width, height]).to(pixels)
        whole = (scale * scale.new_tensor([0.0, 0.0, 1.0, 1.0]))[None]
        boxes = torch.cat([found[0]["boxes"], whole])  # the last one only if there is no other
        number = torch.as_tensor(boxes.shape[0] - 1).clamp(min=1)
        boxes = boxes[torch.arange(self.count, device=pixels.device) % number.to(pixels.device)]
        features = heads.box_head(heads.box_roi_pool(maps, [boxes], [size]))  # (K,D)
        return features[None], features.mean(0)[None], (boxes / scale)[None]


def write_onnx(encoder: DetectorEncoder, path: Path) -> None:
    """Write a detector as `encoder.onnx`: pixels -> features, embedding, boxes; H and W dynamic."""
    side = encoder.transform.shorter_px
    probe = torch.rand(1, 3, side, side + encoder.transform.multiple_px)
    _export(encoder.eval(), probe, path, ["pixels"], ["features", "embedding", "boxes"])


def write_plain_onnx(net: Any, path: Path, names: list[str], side_px: int = 0) -> None:
    """Write a detector as an ONNX file for `--detector`: image (3,H,W) -> boxes, labels, scores.

    Args:
        net: a detector of torchvision.
        path: the file.
        names: of the classes by id; the first one is the background.
        side_px: side of the image that the graph is traced with; any size works later.
    """
    import json

    import onnx

    side = side_px or int(net.transform.min_size[0])
    probe = torch.rand(3, side, side + 32)
    _export(_Plain(net).eval(), probe, path, ["image"], ["boxes", "labels", "scores"])
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": json.dumps(names)})
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Plain(nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.net([image])[0]
        return found["boxes"], found["labels"], found["scores"]


def _export(
    module: nn.Module, probe: Tensor, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    """Trace a detector: torchvision supports the exporter that traces, and no other."""
    axes = {probe.dim() - 2: "height", probe.dim() - 1: "width"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        module(probe)  # the scales of feature maps are found in the first call
        torch.onnx.export(
            module, (probe,), str(path), dynamo=False, opset_version=17, input_names=inputs,
            output_names=outputs, dynamic_axes={inputs[0]: axes},
        )  # fmt: skip
