"""Describing videos: a sentence for each shot, from several of its frames.

One thread decodes and cuts while the calling thread captions; at most a few shots wait between
them, so memory does not grow with the length of the video.
"""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.caption import Caption, Captioner, CaptionOptions, EncodedImage
from cutline.errors import CutlineError, MissingExtraError, OptionError, VideoError
from cutline.video.model import Shot, VideoDescription, VideoOptions

_QUEUED_SHOTS = 3
_SHORTEST_S = 0.15  # a shorter shot is a flash, unless there is no other
_JOINED_S = 0.5  # shots with a longer gap between them are not merged
_SUMMARY_FRAMES = 16
_STRONGEST = 0.05  # the share of a vector's entries that similarity compares
_END = object()

OnShot: TypeAlias = Callable[[Shot, float], object]
"""Called with each shot and the seconds read so far."""


class VideoRun:
    """One video on its way to sentences; can be stopped from another thread.

    Args:
        captioner: any captioner.
        source: a path or the bytes of a file.
        options: how; None is the default.

    Attributes:
        name: the source, for a person.

    Raises:
        VideoError: the file cannot be opened as a video.
        MissingExtraError: PyAV or PySceneDetect is not installed.
    """

    def __init__(
        self, captioner: Captioner, source: Any, options: VideoOptions | None = None
    ) -> None:
        require_video()
        from cutline.video.decode import VideoReader

        self._options = options or VideoOptions()
        self._stop = threading.Event()
        self._reader = VideoReader(source, self._options.limits)
        self._describer = _Describer(captioner, self._options)
        self._described = False
        self.name = self._reader.name

    @property
    def error(self) -> VideoError | None:
        """After the last shot: what is wrong with the rest of the video."""
        return self._reader.error

    @property
    def seconds(self) -> float:
        """How much has been read, seconds from the first frame."""
        return self._reader.end

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, px; 0 before the first frame."""
        return self._reader.geometry.shown if self._reader.geometry else (0, 0)

    def shots(self) -> Iterator[Shot]:
        """The shots, each as soon as it is described.

        Raises:
            VideoError: nothing of the video can be read.
            EngineError: inference failed.
        """
        for shot in self._describer.shots(self._reader, self._stop):
            self._described = True
            yield shot

    def summary(self) -> str:
        """A sentence for the shots so far; "" without shots or if the options ask for none."""
        wanted = self._options.summary and self._described
        return self._describer.summary() if wanted else ""

    def stop(self) -> None:
        """End `shots` soon."""
        self._stop.set()

    def close(self) -> None:
        """Close the file."""
        self._stop.set()
        self._reader.close()


def require_video() -> None:
    """Check that the libraries of the extra `video` are installed.

    Raises:
        MissingExtraError: one is not.
    """
    try:
        import av  # noqa: F401
        import scenedetect  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading videos", "video") from error


def describe_video(
    captioner: Captioner,
    source: Any,
    options: VideoOptions | None = None,
    on_shot: OnShot | None = None,
) -> VideoDescription:
    """Describe the shots of one video.

    Args:
        captioner: any captioner.
        source: a path or the bytes of a file.
        options: how; None is the default.
        on_shot: called with each shot as soon as it is described.

    Returns:
        the shots; with an error if the video is cut short, damaged or longer than allowed.

    Raises:
        VideoError: nothing of the video can be read.
        MissingExtraError: PyAV or PySceneDetect is not installed.
        EngineError: inference failed.
    """
    with closing(VideoRun(captioner, source, options)) as run:
        shots = []
        for shot in run.shots():
            shots.append(shot)
            if on_shot is not None:
                on_shot(shot, run.seconds)
        return VideoDescription(
            run.name,
            run.seconds,
            *run.size,
            tuple(shots),
            run.summary(),
            captioner.name,
            run.error,
        )


def stream_videos(
    captioner: Captioner, sources: Iterable[Any], options: VideoOptions | None = None
) -> Iterator[VideoDescription]:
    """Describe any number of videos in order; one that cannot be read is an item with its error.

    The arguments are those of `describe_video`.
    """
    from cutline.video.decode import describe_source

    for source in sources:
        try:
            yield describe_video(captioner, source, options)
        except VideoError as error:
            yield VideoDescription(describe_source(source), model=captioner.name, error=error)


@dataclass
class _Encoded:
    """A shot whose frames have been encoded."""

    start: float
    end: float
    frames: list[Any]
    images: list[Image.Image]
    embedding: np.ndarray[Any, Any]

    def joined(self, other: _Encoded, most: int) -> _Encoded:
        """This shot and the one after it as one, with frames of both."""
        frames, images = self.frames + other.frames, self.images + other.images
        step = max(1, math.ceil(len(frames) / most))
        share = (self.end - self.start) / max(other.end - self.start, 1e-9)
        embedding = share * self.embedding + (1 - share) * other.embedding
        return _Encoded(self.start, other.end, frames[::step], images[::step], embedding)


class _Describer:
    """Captions the shots of one video."""

    def __init__(self, captioner: Captioner, options: VideoOptions) -> None:
        self._captioner = captioner
        self._options = options
        self._caption = CaptionOptions(options.search, labels=0)
        self._for_summary: list[Any] = []
        self._summary_step = 1
        self._count = 0

    def shots(self, reader: Any, stop: threading.Event) -> Iterator[Shot]:
        """The described shots of a reader's video, neighbours with the same content merged."""
        held: _Encoded | None = None
        short: _Encoded | None = None
        described = False
        for cut in _in_background(reader, self._options, stop):
            shot = self._encode(cut)
            if shot.end - shot.start < _SHORTEST_S:
                short = short or shot
                continue
            if held is not None and self._alike(held, shot):
                held = held.joined(shot, 2 * self._options.frames)
                continue
            if held is not None:
                described = True
                yield self._described(held)
            held = shot
        if held is None and not described:
            held = short
        if held is not None:
            yield self._described(held)

    def summary(self) -> str:
        """A sentence for the whole video, from frames of all its shots."""
        return self._sentence(self._for_summary).text

    def _encode(self, cut: Any) -> _Encoded:
        images = [sample.image for sample in cut.samples]
        frames = [self._captioner.encode(image, self._caption) for image in images]
        if frames and all(isinstance(each, EncodedImage) for each in frames):
            embedding = np.mean([each.embedding for each in frames], axis=0)
        else:
            small = [
                np.asarray(image.convert("L").resize((16, 16)), np.float32) for image in images
            ]
            embedding = np.mean(small, axis=0).ravel()
            embedding = embedding - embedding.mean()
        return _Encoded(cut.start, cut.end, frames, images, embedding)

    def _alike(self, shot: _Encoded, other: _Encoded) -> bool:
        near = other.start - shot.end <= _JOINED_S
        return near and similarity(shot.embedding, other.embedding) >= self._options.merge

    def _described(self, shot: _Encoded) -> Shot:
        caption = self._sentence(shot.frames)
        middle = shot.images[len(shot.images) // 2].copy()
        middle.thumbnail((self._options.thumbnail_px, self._options.thumbnail_px))
        if self._count % self._summary_step == 0:
            self._for_summary.append(shot.frames[len(shot.frames) // 2])
            if len(self._for_summary) > _SUMMARY_FRAMES:
                self._for_summary = self._for_summary[::2]
                self._summary_step *= 2
        self._count += 1
        return Shot(shot.start, shot.end, caption.text, caption.score, middle)

    def _sentence(self, frames: Sequence[Any]) -> Caption:
        """One caption from several encoded frames."""
        method = self._options.method
        averageable = all(isinstance(each, EncodedImage) and each.boxes is None for each in frames)
        if method == "average" and not averageable:
            raise OptionError(
                f"got method 'average' with {self._captioner.name}, whose features cannot be "
                "averaged; expected 'agreement'"
            )
        if method == "middle" or len(frames) == 1:
            chosen = [frames[len(frames) // 2]]
        elif method == "average" or (method == "auto" and averageable):
            features = np.mean([each.features for each in frames], axis=0)
            middle = frames[len(frames) // 2]
            chosen = [replace(middle, features=features.astype(np.float32))]
        else:
            return agreed(self._captioner.decode(frames, self._caption))
        [caption] = self._captioner.decode(chosen, self._caption)
        if caption.error is not None:
            raise caption.error
        return caption


def similarity(vector: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """How alike the content of two shots is, 0..1.

    It is the share of the strongest entries that the vectors have in common. Unlike the cosine it
    has the same scale for different encoders, whose features share a different part that says
    little about the content.

    Args:
        vector: (E,), a mean embedding.
        other: (E,).
    """
    count = max(1, round(_STRONGEST * len(vector)))
    strongest = np.argsort(-vector, kind="stable")[:count]
    shared = np.intersect1d(strongest, np.argsort(-other, kind="stable")[:count])
    return len(shared) / count


def agreed(captions: Sequence[Caption]) -> Caption:
    """The caption that is most like the others; the better score decides ties.

    Likeness is the F1 of the words of two captions.

    Args:
        captions: of the frames of one shot; those with errors do not count.

    Raises:
        CutlineError: every caption has an error; this is the first.
    """
    good = [caption for caption in captions if caption.error is None]
    if not good:
        error = captions[0].error
        assert isinstance(error, CutlineError)
        raise error
    words = [set(re.findall(r"\w+", caption.text.lower())) for caption in good]

    def likeness(place: int) -> tuple[float, float]:
        mine = words[place]
        total = sum(
            2 * len(mine & other) / max(1, len(mine) + len(other))
            for number, other in enumerate(words)
            if number != place
        )
        score = good[place].score
        return round(total, 6), score if math.isfinite(score) else -math.inf

    return good[max(range(len(good)), key=likeness)]


def _in_background(reader: Any, options: VideoOptions, stop: threading.Event) -> Iterator[Any]:
    """The cut shots of a reader, decoded and cut on another thread."""
    from cutline.video.shots import cut_shots

    waiting: queue.Queue[Any] = queue.Queue(_QUEUED_SHOTS)

    def frames() -> Iterator[Any]:
        for frame in reader.frames():
            if stop.is_set():
                return
            yield frame

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for shot in cut_shots(frames(), options):
                put(shot)
            put(_END)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="cutline-video", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                item = waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
