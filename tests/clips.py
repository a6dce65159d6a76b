"""Clips made with PyAV for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image


def scene(seed: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A picture with coarse structure; two seeds look nothing alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def plain(value: int, width: int = 96, height: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    rate: int = 10,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    times: Sequence[float] | None = None,
    offset: float = 0.0,
    rotation: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    transfer: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write pictures (H, W, 3 or 4) as a video, at a constant rate unless times are given."""
    base = Fraction(1, rate) if codec == "mpeg2video" else Fraction(1, 1000)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(codec, rate=rate)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
                stream.codec_context.time_base = base
                if aspect:
                    stream.codec_context.sample_aspect_ratio = aspect
                if transfer:
                    stream.codec_context.color_trc = transfer
                if rotation or mirrored:
                    stream.set_display_rotation(rotation, hflip=mirrored)
            kind = "rgb24" if picture.shape[2] == 3 else "rgba"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind)
            frame = frame.reformat(format=pixels)
            if transfer:
                frame.color_trc = transfer
            time = times[number] if times else number / rate
            frame.pts, frame.time_base = round((time + offset) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shots(*seeds: int, seconds: float = 2.0, rate: int = 10) -> list[np.ndarray]:
    """Frames of shots, each a still picture."""
    return [scene(seed) for seed in seeds for _ in range(round(seconds * rate))]
