"""Tone mapping: frames with a high dynamic range become 8-bit sRGB.

The transfer functions are those of Rec. ITU-R BT.2100 (PQ and HLG), the matrices those of BT.2020
and BT.709. Luminance above the reference white of 203 cd/m2 (BT.2408) is compressed with the curve
of Reinhard et al. (2002), equation 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PQ, _HLG = 16, 18  # H.273 transfer characteristics
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_TO_SRGB = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)  # BT.2087


def is_hdr(raw: Any) -> bool:
    """Whether a PyAV frame uses PQ or HLG."""
    return int(raw.color_trc) in (_PQ, _HLG)


def tone_map(raw: Any, width: int, height: int) -> NDArray[np.uint8]:
    """Scale a PQ or HLG frame and map it to sRGB.

    Args:
        raw: PyAV's frame.
        width: of the result, px.
        height: of the result, px.

    Returns:
        (height, width, 3) RGB.
    """
    pixels = raw.reformat(width=width, height=height, format="yuv444p16le").to_ndarray()
    y, cb, cr = np.moveaxis(pixels.astype(np.float32) / np.float32(65535), -1, 0)
    if int(raw.color_range) == 2:  # full range
        luma, blue, red = y, cb - 0.5, cr - 0.5
    else:
        luma = (y - 16 / 256) * (256 / 219)
        blue, red = (cb - 0.5) * (256 / 224), (cr - 0.5) * (256 / 224)
    r = luma + 1.4746 * red
    b = luma + 1.8814 * blue
    g = (luma - _LUMA[0] * r - _LUMA[2] * b) / _LUMA[1]
    signal = np.stack([r, g, b], axis=-1).clip(0, 1)
    light = _pq(signal) if int(raw.color_trc) == _PQ else _hlg(signal)  # cd/m2
    return to_srgb(light)


def to_srgb(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Linear BT.2020 light in cd/m2, (..., 3), as 8-bit sRGB."""
    scaled = light / np.float32(_WHITE_NITS)
    luminance = scaled @ _LUMA
    peak = np.float32(_PEAK_NITS / _WHITE_NITS)
    mapped = luminance * (1 + luminance / peak**2) / (1 + luminance)
    mapped *= (1 + 1.0) / (1 + 1 / peak**2) * 0.9  # reference white stays near white
    ratio = mapped / np.maximum(luminance, 1e-6)
    linear = (scaled * ratio[..., None] @ _TO_SRGB.T).clip(0, 1)
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    return np.asarray(np.rint(255 * np.where(linear <= 0.0031308, low, high)), np.uint8)


def _pq(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """PQ signal 0..1 -> cd/m2 (BT.2100, table 4)."""
    power = signal ** np.float32(1 / 78.84375)
    base = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
    return np.asarray(10000 * base ** (1 / 0.1593017578125), np.float32)


def _hlg(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """HLG signal 0..1 -> cd/m2 on a display of 1000 cd/m2 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ _LUMA
    return np.asarray(_PEAK_NITS * luminance[..., None] ** 0.2 * scene, np.float32)
