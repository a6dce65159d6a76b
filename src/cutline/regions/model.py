"""Types for described regions; imports no inference engine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from cutline.boxes import Box
from cutline.errors import CutlineError, OptionError
from cutline.image import Limits
from cutline.options import SearchOptions


@dataclass(frozen=True)
class Region:
    """One described region.

    Attributes:
        box: pixels of the upright image.
        phrase: a description without a capital letter and a full stop.
        label: the most likely class, of ImageNet or of the detector; "" if there is none.
        confidence: 0..1, the geometric mean of the probabilities of the phrase's words, or the
            detector's score; not calibrated.
        label_probability: 0..1, of the label.
        score: mean log-probability per token of the phrase, nats.
    """

    box: Box
    phrase: str
    label: str = ""
    confidence: float = 0.0
    label_probability: float = 0.0
    score: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the box as COCO writes it, [x, y, width, height], to a tenth of a pixel."""
        return {
            "bbox": [round(value, 1) for value in self.box.xywh],
            "phrase": self.phrase,
            "label": self.label,
            "confidence": round(self.confidence, 4),
            "label_probability": round(self.label_probability, 4),
        }


@dataclass(frozen=True)
class Grounding:
    """A noun of the whole caption with the box that its attention gives.

    Attributes:
        word: the noun.
        position: its place in the caption's tokens, from 0.
        box: pixels of the upright image.
    """

    word: str
    position: int
    box: Box

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        bbox = [round(value, 1) for value in self.box.xywh]
        return {"word": self.word, "position": self.position, "bbox": bbox}


@dataclass(frozen=True)
class ImageRegions:
    """The described regions of one image, or the reason why there are none.

    Attributes:
        source: the path, or a short description of any other source.
        width: of the upright image, px.
        height: of the upright image, px.
        regions: best first; for given boxes in their order.
        caption: of the whole image; "" if it was not asked for.
        groundings: nouns of the caption with their boxes.
        model: the captioner's name.
        error: what is wrong with the image.
        note: what is missing of a damaged image that was described all the same.
    """

    source: str
    width: int = 0
    height: int = 0
    regions: tuple[Region, ...] = ()
    caption: str = ""
    groundings: tuple[Grounding, ...] = ()
    model: str = ""
    error: CutlineError | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the image was described."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """As a line of JSON."""
        error = self.error
        row = {
            "source": self.source,
            "status": "ok" if error is None else "error",
            "width": self.width,
            "height": self.height,
            "caption": self.caption or None,
            "regions": [region.to_dict() for region in self.regions],
            "groundings": [grounding.to_dict() for grounding in self.groundings],
            "model": self.model,
            "error": error and error.to_dict(),
        }
        return {**row, "note": self.note} if self.note else row


@dataclass(frozen=True)
class Detection:
    """A box that a detector found.

    Attributes:
        box: pixels.
        label: the class's name; "" if the detector has no names.
        score: 0..1.
    """

    box: Box
    label: str
    score: float


class Detector(Protocol):
    """Anything that finds boxes in an image; safe to call from several threads."""

    def __call__(self, image: Image.Image) -> Iterable[Detection]:
        """Find boxes.

        Args:
            image: RGB, upright.

        Raises:
            EngineError: inference failed.
        """
        ...


@dataclass(frozen=True)
class RegionOptions:
    """How regions are found and described.

    Raises:
        OptionError: an option is out of its range.
    """

    margin: float = 0.1
    """Context on every side of a box, as a fraction of its width and height."""

    max_regions: int = 10
    """Regions returned for each image, unless boxes are given."""

    proposals: int = 30
    """Boxes described for each image before the best are chosen."""

    max_overlap: float = 0.5
    """Of two boxes with a larger intersection over union only the better one is kept."""

    min_confidence: float = 0.0
    """Regions with a lower confidence are left out, unless boxes are given."""

    caption: bool = False
    """Whether the whole image is captioned too, and the caption's nouns are grounded."""

    batch_size: int = 16
    """Regions described together."""

    search: SearchOptions | None = None
    """How phrases are searched for; None is the model's own way."""

    limits: Limits = field(default_factory=Limits)
    """What is refused as too large."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least, most in (
            ("margin", 0, 10),
            ("max_regions", 1, 1000),
            ("proposals", 1, 1000),
            ("max_overlap", 0, 1),
            ("min_confidence", 0, 1),
            ("batch_size", 1, math.inf),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                to = "or more" if most == math.inf else f"to {most}"
                raise OptionError(f"got {name} {value}; expected {least} {to}")
