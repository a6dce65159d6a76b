"""What a picture's pixels tell of its purpose, and the text in it."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.errors import MissingExtraError
from cutline.site.records import Pixels

_SURE = 0.7  # a line read with less is left out


def measure(image: Image.Image) -> Pixels:
    """What a picture's pixels tell of its purpose: cheap, and sure only of the plain cases.

    Args:
        image: of any mode and size; with its transparency, if it has any.

    Returns:
        `text_like` is high for a few lines of text on a plain ground; `chart_like` for long
        straight lines on a plain ground, or for even patches of few colours between them.
        Photographs have neither.
    """
    width, height = image.size
    if not width or not height:
        return Pixels(width, height, flat=True)
    small = image.convert("RGBA")
    if max(small.size) > 800:
        small.thumbnail((800, 800), Image.Resampling.BOX)
    rgba = np.asarray(small, dtype=np.int16)
    if rgba[..., 3].max() <= 8:
        return Pixels(width, height, flat=True)
    opaque = rgba[..., 3:] / 255
    rgb = rgba[..., :3] * opaque + 255 * (1 - opaque)
    if (np.ptp(rgb, axis=(0, 1)) <= 8).all():
        return Pixels(width, height, flat=True)
    return Pixels(width, height, False, *_text_and_chart(rgb @ np.array([0.299, 0.587, 0.114])))


def _text_and_chart(gray: NDArray[np.float64]) -> tuple[float, float]:
    """How much a grey picture (H, W), 0..255, looks like text and like a chart."""
    if min(gray.shape) < 16:
        return 0.0, 0.0
    ground = float(np.argmax(np.bincount(gray.astype(np.int64).ravel(), minlength=256)))
    ink = np.abs(gray - ground) > 40
    plain = float((np.abs(gray - ground) <= 6).mean())
    if plain < 0.5 or not 0.005 <= ink.mean() <= 0.4:
        return 0.0, 0.0
    height, width = ink.shape
    row_runs, column_runs = _longest_runs(ink), _longest_runs(ink.T)
    lines = int((row_runs > 0.4 * width).sum() > 0) + int((column_runs > 0.4 * height).sum() > 0)
    return (0.0 if lines else _text_like(ink)), (min(1.0, plain) if lines == 2 else 0.0)


def _text_like(ink: NDArray[np.bool_]) -> float:
    """0..1: bands of ink between blank rows, each of many thin strokes."""
    height = len(ink)
    inked = ink.any(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[0, inked, 0]))
    good = total = 0.0
    for top, bottom in zip(edges[::2], edges[1::2], strict=True):
        band = ink[top:bottom]
        tall = bottom - top
        weight = float(band.sum())
        total += weight
        strokes = np.count_nonzero(np.diff(band.astype(np.int8), axis=1) > 0, axis=1)
        columns = np.flatnonzero(band.any(axis=0))
        span = int(columns[-1] - columns[0]) + 1
        share = weight / (tall * span)
        if 5 <= tall <= 0.8 * height and span >= 3 * tall and 0.1 <= share <= 0.6:
            per_height = float(np.median(strokes)) * tall / span
            good += weight * (0.5 <= per_height <= 4)
    return float(good / total) if total else 0.0


def _longest_runs(ink: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The longest unbroken run of each row (H,)."""
    run = np.zeros(len(ink), np.int64)
    longest = run.copy()
    for column in ink.T:
        run = (run + 1) * column
        np.maximum(longest, run, out=longest)
    return longest


def read_text(image: Image.Image) -> str:
    """The text in a picture, a line each, top to bottom; "" if none was read with confidence.

    RapidOCR's own models, which come with it, read Chinese, Japanese and Latin scripts.

    Raises:
        MissingExtraError: `cutline[ocr]` is not installed.
    """
    found = _reader()(np.asarray(image.convert("RGB"))[..., ::-1])
    lines = zip(found.txts or (), found.scores or (), strict=True)
    return "\n".join(text for text, score in lines if score >= _SURE)


@cache
def _reader() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError:
        raise MissingExtraError("Reading text in pictures", "ocr") from None
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR()
