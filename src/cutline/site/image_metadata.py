"""Text that an image file carries in its metadata, as a suggestion before any model is asked."""

from __future__ import annotations

from dataclasses import replace
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


def with_metadata(decision: Decision, file: Path, language: str = "") -> Decision:
    """The decision with the alt that a file carries: its alt text, or else its description.

    Default texts of cameras and programs, and texts that say nothing, do not count.

    Args:
        decision: without an alt.
        file: the image file; its XMP sidecar counts too.
        language: the preferred language, a language tag; "" prefers the default text.

    Returns:
        The same decision if the file carries no text or cannot be read.
    """
    try:
        found = read_text(file, language or None)
    except (MetadataError, ImageNotFoundError):
        return decision
    for text, source in (
        (found.alt, found.alt_source),
        (found.description, found.description_source),
    ):
        if text and not says_nothing(text):
            shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1].rstrip()}…"
            evidence = f'the image file has the {_NAMES.get(source, source)} "{shown}"'
            return replace(decision, rule=METADATA_RULE, evidence=evidence, alt=text)
    return decision
