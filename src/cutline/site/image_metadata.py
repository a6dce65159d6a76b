"""Text that an image file carries in its metadata, as a suggestion before any model is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from cutline.errors import ImageNotFoundError, MetadataError
from cutline.metadata.read import read_text
from cutline.site.decide.alt_text import METADATA_RULE
from cutline.site.decide.lint import says_nothing
from cutline.site.model import Decision

_SHOWN = 60  # characters
_NAMES = {
    "Xmp.iptc.AltTextAccessibility": "AltTextAccessibility (IPTC)",
    "Xmp.dc.description": "description (dc:description)",
    "Exif.Image.ImageDescription": "description (Exif ImageDescription)",
    "Iptc.Application2.Caption": "description (IPTC Caption-Abstract)",
    "HEIF altt": "alternative text (HEIF)",
}


@dataclass(frozen=True)
class CarriedText:
    """The text that an image file carries about itself.

    Attributes:
        text: the alt text, or else the description.
        source: the name of its field.
    """

    text: str
    source: str


def carried_text(file: Path, language: str = "") -> CarriedText | None:
    """The alt text that a file carries, or else its description; None if it carries neither.

    Default texts of cameras and programs, and texts that say nothing, do not count. A file that
    cannot be read carries none.

    Args:
        file: the image file; its XMP sidecar counts too.
        language: the preferred language, a language tag; "" prefers the default text.
    """
    try:
        found = read_text(file, language or None)
    except (MetadataError, ImageNotFoundError):
        return None
    for text, source in (
        (found.alt, found.alt_source),
        (found.description, found.description_source),
    ):
        if text and not says_nothing(text):
            return CarriedText(text, _NAMES.get(source, source))
    return None


def with_carried_text(decision: Decision, carried: CarriedText | None) -> Decision:
    """The decision with the text of the image file as alt, if it carries one."""
    if carried is None:
        return decision
    text = carried.text
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1].rstrip()}…"
    evidence = f'the image file has the {carried.source} "{shown}"'
    return replace(decision, rule=METADATA_RULE, evidence=evidence, alt=text)
