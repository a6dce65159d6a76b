"""Types for described videos; imports no video library."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cutline.errors import CutlineError, OptionError
from cutline.options import SearchOptions

if TYPE_CHECKING:
    from PIL import Image

METHODS = ("auto", "average", "agreement", "middle")
"""How one sentence comes from several frames."""


@dataclass(frozen=True)
class Shot:
    """One shot with its sentence.

    Attributes:
        start: seconds from the first frame of the video.
        end: seconds; the end of the last frame of the shot.
        caption: the sentence.
        score: mean log-probability per token, nats; NaN if the captioner gives none.
        thumbnail: RGB, upright, a frame from the middle; None after `without_thumbnails`.
    """

    start: float
    end: float
    caption: str
    score: float = math.nan
    thumbnail: Image.Image | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with times to a millisecond."""
        score = round(self.score, 4) if math.isfinite(self.score) else None
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {**times, "caption": self.caption, "score": score}


@dataclass(frozen=True)
class VideoDescription:
    """The described shots of one video, or the reason why there are none.

    Attributes:
        source: the path, or a short description of the bytes.
        duration: seconds from the first frame to the end of the last one that could be read.
        width: of the upright picture with square pixels, px.
        height: likewise.
        shots: in the order of time.
        summary: one sentence for the whole video; "" if it was not asked for.
        model: the captioner's name.
        error: what is wrong with the video; there may be shots all the same, of the part that
            could be read.
    """

    source: str
    duration: float = 0.0
    width: int = 0
    height: int = 0
    shots: tuple[Shot, ...] = ()
    summary: str = ""
    model: str = ""
    error: CutlineError | None = None

    @property
    def ok(self) -> bool:
        """Whether the whole video was read."""
        return self.error is None

    @property
    def partial(self) -> bool:
        """Whether there are shots in spite of an error."""
        return self.error is not None and bool(self.shots)

    def to_dict(self) -> dict[str, Any]:
        """As a line of JSON."""
        error = self.error
        return {
            "source": self.source,
            "status": "ok" if error is None else "error",
            "duration": round(self.duration, 3),
            "width": self.width,
            "height": self.height,
            "summary": self.summary or None,
            "shots": [shot.to_dict() for shot in self.shots],
            "model": self.model,
            "error": error and error.to_dict(),
        }


@dataclass(frozen=True)
class VideoLimits:
    """How large a video may be before it is refused."""

    max_bytes: float = math.inf
    """Bytes of the file."""

    max_seconds: float = math.inf
    """Seconds from the first frame; a longer video is an error after so many."""

    max_pixels: int = 8192 * 8192
    """Pixels of one frame."""

    def __post_init__(self) -> None:
        """Refuse limits that nothing can keep."""
        if min(self.max_bytes, self.max_seconds, self.max_pixels) <= 0:
            raise OptionError(f"got {self}; expected limits above 0")


@dataclass(frozen=True)
class VideoOptions:
    """How videos are described.

    Raises:
        OptionError: an option is out of its range.
    """

    frames: int = 4
    """Frames of each shot that its sentence comes from."""

    method: str = "auto"
    """How one sentence comes from them: "average" averages their features and decodes once,
    "agreement" captions each and takes the caption that is most like the others, "middle" captions
    the middle one; "auto" is "average" for models whose features can be averaged, else
    "agreement"."""

    min_shot: float = 0.6
    """Shortest shot, seconds; a cut that comes sooner is not counted."""

    threshold: float = 3.0
    """How much a cut must stand out from the frames around it; lower finds more cuts."""

    merge: float = 0.5
    """Neighbouring shots are merged if the similarity of their features, 0..1, is at least this."""

    summary: bool = False
    """Whether the whole video gets a sentence too."""

    thumbnail_px: int = 320
    """Longer side of the thumbnails, px."""

    search: SearchOptions | None = None
    """How captions are searched for; None is the model's own way."""

    limits: VideoLimits = field(default_factory=VideoLimits)
    """What is refused as too large."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least, most in (
            ("frames", 1, 64),
            ("min_shot", 0, 3600),
            ("threshold", 0.1, 100),
            ("merge", 0, 2),
            ("thumbnail_px", 16, 4096),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise OptionError(f"got {name} {value}; expected {least} to {most}")
        if self.method not in METHODS:
            raise OptionError(f"got method {self.method!r}; expected {', '.join(METHODS)}")
