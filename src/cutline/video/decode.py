"""Decoding with PyAV: any container and codec becomes frames with times, or one typed error.

Times are seconds from the first frame shown. Packets are decoded one by one: an error in one costs
that packet, not the frames that follow it. Formats that would open other files or addresses (such
as playlists) are not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.discover import is_url
from cutline.errors import (
    VideoCorruptError,
    VideoError,
    VideoFormatError,
    VideoNotFoundError,
    VideoTooLargeError,
)
from cutline.video.model import VideoLimits
from cutline.video.tone_mapping import is_hdr, tone_map

VideoSource: TypeAlias = "str | os.PathLike[str] | bytes"
"""A path or the bytes of a file."""

_REFUSED = frozenset(
    """alias_pix brender_pix concat dash ffmetadata hls image2 image2pipe imf lavfi rtp rtsp sap sdp
    tty webm_dash_manifest""".split()
)
_DEFAULT_RATE = Fraction(25)
_MISSING_S = 0.3  # a video that ends this much before its declared end is cut short
_MISSING_SHARE = 0.02
_LONGEST_JUMP_S = 3600.0  # a later timestamp than this after the last is taken for damage


def describe_source(source: VideoSource) -> str:
    """Name a source for a person: its path, or its size."""
    return f"<bytes: {len(source)} B>" if isinstance(source, bytes) else os.fsdecode(source)


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        time: seconds from the first frame.
        duration: seconds.
        raw: PyAV's frame.
        geometry: how it is shown.
    """

    time: float
    duration: float
    raw: Any
    geometry: Geometry

    def picture(self, side_px: int) -> Image.Image:
        """The frame as it is shown: upright, with square pixels, tone-mapped, over white.

        Args:
            side_px: the longer side; a smaller frame keeps its size.

        Returns:
            RGB.
        """
        return self.geometry.upright(self._coded(*self.geometry.coded(side_px)))

    def thumbnail_bgr(self, side_px: int = 256) -> NDArray[np.uint8]:
        """A small copy for shot detection: (H, W, 3), BGR, in the coded orientation."""
        width, height = self.geometry.coded(side_px)
        small = self.raw.reformat(
            width=width, height=height, format="bgr24", interpolation="FAST_BILINEAR"
        )
        return np.asarray(small.to_ndarray(), np.uint8)

    def _coded(self, width: int, height: int) -> Image.Image:
        raw = self.raw
        if is_hdr(raw):
            return Image.fromarray(tone_map(raw, width, height))
        method = "AREA"
        alpha = any(part.is_alpha for part in raw.format.components)
        if raw.interlaced_frame and raw.height >= 4:
            full = raw.to_ndarray(format="rgb24")[::2]  # one of the two fields
            return Image.fromarray(full).resize((width, height), Image.Resampling.BILINEAR)
        if alpha:
            small = raw.reformat(width=width, height=height, format="rgba", interpolation=method)
            over = Image.fromarray(small.to_ndarray())
            white = Image.new("RGB", over.size, "white")
            white.paste(over, mask=over)
            return white
        small = raw.reformat(width=width, height=height, format="rgb24", interpolation=method)
        return Image.fromarray(small.to_ndarray())


@dataclass(frozen=True)
class Geometry:
    """How frames are shown.

    Attributes:
        width: coded, px.
        height: coded, px.
        aspect: of a pixel, width over height.
        quarter_turns: counter-clockwise, that bring a frame upright.
        mirrored: whether it is flipped left to right before it is turned.
    """

    width: int
    height: int
    aspect: float
    quarter_turns: int
    mirrored: bool

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the upright picture with square pixels."""
        width, height = max(1, round(self.width * self.aspect)), self.height
        return (height, width) if self.quarter_turns % 2 else (width, height)

    def coded(self, side_px: int) -> tuple[int, int]:
        """Width and height before turning, with square pixels and the longer side at most this."""
        width, height = self.width * self.aspect, float(self.height)
        scale = min(1.0, side_px / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def upright(self, image: Image.Image) -> Image.Image:
        """Flip and turn an image."""
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180,
                 Image.Transpose.ROTATE_270)  # fmt: skip
        turn = turns[self.quarter_turns % 4]
        return image if turn is None else image.transpose(turn)


class VideoReader:
    """The frames of one video. Use as a context manager.

    Args:
        source: a path or the bytes of a file.
        limits: what is refused.

    Attributes:
        name: the source, for a person.
        declared_s: the length that the file declares, seconds; None if it declares none.
        end: where the last frame read ends, seconds.
        error: what was found wrong while reading; None if nothing was.

    Raises:
        VideoError: the subclass that says what is wrong.
    """

    def __init__(self, source: VideoSource, limits: VideoLimits | None = None) -> None:
        self.name = describe_source(source)
        self.error: VideoError | None = None
        self.end = 0.0
        self.geometry: Geometry | None = None
        self._limits = limits or VideoLimits()
        self._file: BinaryIO = (
            BytesIO(source) if isinstance(source, bytes) else _open_file(self.name)
        )
        try:
            size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            if not size:
                raise VideoCorruptError(self.name, "the file is empty")
            if size > self._limits.max_bytes:
                raise VideoTooLargeError(
                    self.name, f"got {size:,} bytes; expected at most {self._limits.max_bytes:,.0f}"
                )
            self._container: Any = self._open()
        except BaseException:
            self._file.close()
            raise
        try:
            self._stream = self._choose()
            self.declared_s = self._declared()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VideoReader:
        """Return the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._file.close()

    def frames(self) -> Iterator[Frame]:
        """All frames that can be decoded, in the order in which they are shown.

        What is wrong with the rest is in `error` afterwards.

        Raises:
            VideoTooLargeError: the frames have too many pixels.
            VideoFormatError: the codec has no decoder, or there is no frame at all.
        """
        clock = _Clock(self._stream)
        damaged = 0
        for raw in self._decoded():
            if raw is None:
                damaged += 1
                continue
            if self.geometry is None:
                self.geometry = self._geometry(raw)
            time, duration = clock.place(raw)
            if time > self._limits.max_seconds:
                self.error = VideoTooLargeError(
                    self.name,
                    f"is longer than {self._limits.max_seconds:g} seconds; only its beginning "
                    "was described",
                )
                return
            self.end = max(self.end, time + duration)
            yield Frame(time, duration, raw, self._current_geometry(raw))
        if self.geometry is None:
            raise VideoCorruptError(self.name, "no frame can be decoded; the file is damaged")
        self._check_end(damaged)

    def _decoded(self) -> Iterator[Any]:
        """Decoded frames; None for each packet that cannot be decoded."""
        context = self._stream.codec_context
        packets = self._container.demux(self._stream)
        self.interrupted = False
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError):
                self.interrupted = True
                break
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                continue  # asks for what the decoder still holds, which is done below
            if packet.is_corrupt:
                yield None
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError:
                yield None
        try:
            yield from context.decode(None)
        except av.error.FFmpegError:
            yield None

    def _check_end(self, damaged: int) -> None:
        missing = (self.declared_s or 0.0) - self.end
        if self.interrupted or missing > max(_MISSING_S, _MISSING_SHARE * (self.declared_s or 0)):
            declared = f" of {self.declared_s:.1f}" if self.declared_s else ""
            self.error = VideoCorruptError(
                self.name, f"is cut short: {self.end:.1f}{declared} seconds could be read"
            )
        elif damaged:
            self.error = VideoCorruptError(
                self.name, f"is damaged: {damaged} packets could not be decoded"
            )

    def _open(self) -> Any:
        allowed = sorted(
            name
            for name in av.formats_available
            if name not in _REFUSED and not (name.endswith("_pipe") and name != "yuv4mpegpipe")
        )
        with _refusals(self.name):
            return av.open(
                self._file,
                metadata_errors="ignore",
                options={"format_whitelist": ",".join(allowed), "protocol_whitelist": "none"},
            )

    def _choose(self) -> Any:
        """The video stream to describe."""
        streams = list(self._container.streams.video)
        cover = [each for each in streams if each.disposition & _attached_picture()]
        moving = [each for each in streams if each not in cover]
        if not moving:
            what = "only the cover picture of an audio file" if cover else "no video stream"
            raise VideoFormatError(self.name, f"it has {what}; expected a video")
        stream = max(moving, key=lambda each: bool(each.disposition & _default()))
        context = stream.codec_context
        if context is None or not getattr(context, "codec", None):
            raise VideoFormatError(self.name, "its video codec has no decoder here; convert it")
        self._check_pixels(context.width, context.height)
        context.thread_type = "AUTO"
        return stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise VideoTooLargeError(
                self.name,
                f"got frames of {width:,} x {height:,} pixels; expected at most "
                f"{self._limits.max_pixels:,} in all",
            )

    def _declared(self) -> float | None:
        """The length that the file declares for its video, seconds."""
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        for key in ("DURATION", "DURATION-eng"):
            if text := stream.metadata.get(key):
                with _ignored(ValueError):
                    hours, minutes, seconds = text.split(":")
                    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        alone = len(container.streams) == 1
        estimated = container.format.name in ("mpegts", "mpeg") or "raw" in container.format.name
        if alone and container.duration and not estimated:
            return float(container.duration) / 1_000_000
        return None

    def _geometry(self, raw: Any) -> Geometry:
        self._check_pixels(raw.width, raw.height)
        aspect = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
        ratio = float(aspect) if aspect else 1.0
        turns, mirrored = _orientation(raw)
        return Geometry(raw.width, raw.height, ratio if 0.1 < ratio < 10 else 1.0, turns, mirrored)

    def _current_geometry(self, raw: Any) -> Geometry:
        """The geometry of this frame, whose size may have changed within the stream."""
        assert self.geometry is not None
        if (raw.width, raw.height) == (self.geometry.width, self.geometry.height):
            return self.geometry
        return self._geometry(raw)


class _Clock:
    """Times of frames: seconds from the first one, never backwards."""

    def __init__(self, stream: Any) -> None:
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
        self._usual = float(1 / rate) if 0 < rate <= 1000 else float(1 / _DEFAULT_RATE)
        self._offset: float | None = None
        self._last: float | None = None

    def place(self, raw: Any) -> tuple[float, float]:
        """Start and duration of a frame, seconds."""
        duration = self._usual
        if raw.duration and raw.time_base and 0 < raw.duration * raw.time_base < 60:
            duration = float(raw.duration * raw.time_base)
        stamp = None if raw.pts is None or raw.time_base is None else float(raw.pts * raw.time_base)
        if self._last is None:
            self._offset, self._last = stamp or 0.0, 0.0
            return 0.0, duration
        following = self._last + duration
        if stamp is None:
            time = following
        else:
            time = stamp - (self._offset or 0.0)
            if time < self._last or time > self._last + _LONGEST_JUMP_S:
                self._offset = stamp - following  # timestamps restart within the stream
                time = following
        self._last = time
        return time, duration


def _orientation(raw: Any) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether the frame is mirrored first."""
    matrix = None
    for data in raw.side_data:
        if getattr(data.type, "name", str(data.type)) == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32)[:9]
    if matrix is None or len(matrix) < 9:
        return round((raw.rotation or 0) / 90) % 4, False
    a, b, c, d = (float(value) for value in matrix[[0, 1, 3, 4]])
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    angle = np.degrees(np.arctan2(-b, a))  # the matrix turns clockwise for positive b
    return round(float(angle) / 90) % 4, mirrored


def _attached_picture() -> Any:
    return av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


def _default() -> Any:
    return av.stream.Disposition.default


def _open_file(name: str) -> BinaryIO:
    """Open a regular file."""
    try:
        kind = Path(name).stat().st_mode
        if not stat.S_ISREG(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a pipe, socket or device"
            raise VideoFormatError(name, f"is {what}; expected a video file")
        return Path(name).open("rb")
    except VideoError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        a_url = "is a URL; expected a file: download it first"
        raise VideoNotFoundError(name, a_url if is_url(name) else "no such file") from error
    except OSError as error:
        raise VideoError(name, f"cannot be opened: {error.strerror}") from error


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what opening a file raises into one typed error."""
    try:
        yield
    except av.error.InvalidDataError as error:
        raise VideoFormatError(
            name, "it is no video that can be read, or its beginning or end is missing"
        ) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise VideoFormatError(name, f"it cannot be read as a video ({detail})") from error


@contextmanager
def _ignored(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
