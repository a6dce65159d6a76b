"""Shots: PySceneDetect finds the cuts, and a few frames of each shot are kept for captioning.

Frames are analysed one by one as they are decoded and only small copies of some are kept, so memory
does not grow with the length of the video. Frames without content (black, white, a fade's end, a
flash) are not shown to the detector and not kept: they belong to no shot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.video.decode import Frame
from cutline.video.model import VideoOptions

DETECTION_PX = 256
"""Longer side of the frames that the detector gets."""

PICTURE_PX = 448
"""Longer side of the frames that are kept for captioning."""

_BLANK_SPREAD = 6.0  # standard deviation of the luminance, of 255, below which nothing is shown
_DARK, _BRIGHT = 10.0, 246.0  # 99th and 1st percentile of the luminance
_GAP_S = 0.25  # blank frames for longer than this part shots
_TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True)
class Sample:
    """A kept frame: its time in seconds, and the image."""

    time: float
    image: Image.Image


@dataclass
class CutShot:
    """A shot before it is described.

    Attributes:
        start: seconds.
        end: seconds.
        samples: in the order of time, spread over the shot.
    """

    start: float
    end: float
    samples: list[Sample]


@dataclass
class _Samples:
    """Frames spread evenly over a shot of unknown length, at most `2 * most` of them."""

    most: int
    kept: list[Sample] = field(default_factory=list)
    interval: float = 0.0

    def offer(self, frame: Frame, lately: Sample | None = None) -> Sample | None:
        """Keep the frame if it is far enough from the last one kept."""
        if self.kept and frame.time - self.kept[-1].time < self.interval:
            return None
        sample = lately or Sample(frame.time, frame.picture(PICTURE_PX))
        self.kept.append(sample)
        if len(self.kept) > 2 * self.most:
            self.kept = self.kept[::2]
            self.interval = 1.5 * (self.kept[-1].time - self.kept[0].time) / (2 * self.most)
        return sample

    def chosen(self, start: float, end: float) -> list[Sample]:
        """At most `most` samples, at even distances between the ends of the shot."""
        inside = [each for each in self.kept if start <= each.time < end] or self.kept
        wanted = [start + (end - start) * (k + 0.5) / self.most for k in range(self.most)]
        nearest = {
            min(range(len(inside)), key=lambda place: abs(inside[place].time - time))
            for time in wanted
            if inside
        }
        return [inside[place] for place in sorted(nearest)]


def is_blank(bgr: NDArray[np.uint8]) -> bool:
    """Whether a frame shows nothing: one colour, or all but black or white.

    Args:
        bgr: (H, W, 3).
    """
    luminance = bgr[::3, ::3].astype(np.float32) @ np.array([0.114, 0.587, 0.299], np.float32)
    low, high = np.percentile(luminance, [1, 99])
    return bool(luminance.std() < _BLANK_SPREAD or high < _DARK or low > _BRIGHT)


class _Cutter:
    """Builds shots from frames and cuts."""

    def __init__(self, options: VideoOptions) -> None:
        self._options = options
        self._start: float | None = None
        self.last_end = 0.0
        self._samples = _Samples(options.frames)
        self._recent: deque[Sample] = deque(maxlen=4)
        self._times: deque[float] = deque(maxlen=16)

    def add(self, frame: Frame) -> None:
        """A frame with content that belongs to the present shot."""
        if self._start is None:
            self._start = frame.time
        self.last_end = frame.time + frame.duration
        self._times.append(frame.time)
        taken = self._samples.offer(frame)
        if taken is None and self._samples.interval > 0.2:
            # a cut is reported some frames late; the first frames of the next shot are needed then
            taken = Sample(frame.time, frame.picture(PICTURE_PX))
        if taken is not None:
            self._recent.append(taken)

    def cut(self, time: float) -> Iterator[CutShot]:
        """A cut at a time that may lie a few frames back, rounded to the detector's time base."""
        time = next((t for t in self._times if abs(t - time) <= float(_TIME_BASE)), time)
        if self._start is None or time <= self._start:
            return
        after = [each for each in [*self._samples.kept, *self._recent] if each.time >= time]
        end = self.last_end
        yield self._finished(time)
        self._start, self.last_end = time, end
        self._samples.kept = list({each.time: each for each in after}.values())

    def close(self) -> Iterator[CutShot]:
        """The end of the video, or blank frames."""
        if self._start is not None:
            yield self._finished(self.last_end)
        self._start = None
        self._recent.clear()

    def _finished(self, end: float) -> CutShot:
        assert self._start is not None
        shot = CutShot(self._start, end, self._samples.chosen(self._start, end))
        self._samples = _Samples(self._options.frames)
        return shot


def cut_shots(frames: Iterator[Frame], options: VideoOptions) -> Iterator[CutShot]:
    """Cut a video into shots, each as soon as it has ended.

    Args:
        frames: decoded, in order.
        options: `frames`, `min_shot` and `threshold` are used.
    """
    from scenedetect.detectors import AdaptiveDetector

    def new_detector() -> Any:
        return AdaptiveDetector(
            adaptive_threshold=options.threshold, min_scene_len=float(options.min_shot)
        )

    detector = new_detector()
    cutter = _Cutter(options)
    blank_since: float | None = None
    for frame in frames:
        small = frame.thumbnail_bgr(DETECTION_PX)
        if is_blank(small):
            blank_since = frame.time if blank_since is None else blank_since
            if frame.time + frame.duration - blank_since >= _GAP_S:
                yield from cutter.close()
            continue
        if blank_since is not None:
            if frame.time - blank_since >= _GAP_S:
                detector = new_detector()
            blank_since = None
        cutter.add(frame)
        for cut in detector.process_frame(_timecode(frame), small):
            yield from cutter.cut(float(cut.seconds))
    for cut in detector.post_process(_timecode_at(cutter.last_end)):
        yield from cutter.cut(float(cut.seconds))
    yield from cutter.close()


def _timecode(frame: Frame) -> Any:
    return _timecode_at(frame.time)


def _timecode_at(time: float) -> Any:
    from scenedetect.common import FrameTimecode, Timecode

    stamp = Timecode(pts=round(time / _TIME_BASE), time_base=_TIME_BASE)
    return FrameTimecode(stamp, fps=Fraction(25))
