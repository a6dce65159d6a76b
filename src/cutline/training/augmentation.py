"""Random crops, mirror images and colour changes of image batches, on the batch's device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cutline.preprocess import Transform

PARAMETERS = 8
"""Numbers per image: the crop's centre (x, y) and half size (w, h) in -1 to 1, the mirror's sign,
and the factors of brightness, contrast and saturation."""
_LUMA = (0.299, 0.587, 0.114)
_MAX_STRETCH = 4 / 3


def draw_parameters(
    rng: np.random.Generator, count: int, *, min_area: float, colour: float
) -> NDArray[np.float32]:
    """Draw the parameters of `augment` for so many images.

    Args:
        rng: the source of randomness.
        count: images.
        min_area: smallest share of the image in a crop.
        colour: most by which the colour factors differ from 1.

    Returns:
        (count, PARAMETERS).
    """
    area = rng.uniform(min_area, 1.0, count)
    stretch = _MAX_STRETCH ** rng.uniform(-1, 1, count)
    half = np.stack([(area * stretch) ** 0.5, (area / stretch) ** 0.5], 1).clip(max=1.0)
    centre = rng.uniform(-1, 1, (count, 2)) * (1 - half)
    mirror = rng.choice([-1.0, 1.0], (count, 1))
    factors = rng.uniform(1 - colour, 1 + colour, (count, 3))
    return np.concatenate([centre, half, mirror, factors], 1).astype(np.float32)


def augment(images: Tensor, parameters: Tensor, transform: Transform) -> Tensor:
    """Crop, mirror, change colours and normalise.

    Args:
        images: (B,H,W,3) uint8.
        parameters: (B, PARAMETERS) of `draw_parameters`.
        transform: gives the side S and the normalisation.

    Returns:
        (B,3,S,S) float32.
    """
    side = transform.side_px
    x = images.permute(0, 3, 1, 2).float()
    centre, half, mirror = parameters[:, :2], parameters[:, 2:4], parameters[:, 4]
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = half[:, 0] * mirror, half[:, 1]
    theta[:, :, 2] = centre
    grid = F.affine_grid(theta, [len(x), 3, side, side], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (parameters[:, i].view(-1, 1, 1, 1) for i in (5, 6, 7))
    x = x * brightness
    grey = (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = (x - grey.mean((2, 3), keepdim=True)) * contrast + grey.mean((2, 3), keepdim=True)
    grey = (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    x = (grey + (x - grey) * saturation).clamp(0, 255)
    return (x - transform.mean) / transform.scale


def normalise(images: Tensor, transform: Transform) -> Tensor:
    """(B,H,W,3) uint8 -> (B,3,S,S) float32 without augmentation."""
    x = images.permute(0, 3, 1, 2).float()
    if x.shape[-1] != transform.side_px:
        side = (transform.side_px, transform.side_px)
        x = F.interpolate(x, side, mode="bilinear", align_corners=False, antialias=True)
    return (x - transform.mean) / transform.scale


def identity_parameters(count: int) -> Tensor:
    """Parameters (count, PARAMETERS) with which `augment` only normalises."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).expand(count, -1)
