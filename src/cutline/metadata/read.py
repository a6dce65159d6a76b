"""Reading the alt text and the description that an image file already carries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cutline.errors import ImageNotFoundError, MetadataError
from cutline.metadata import container
from cutline.metadata.exiv2_client import Field, read_fields

ALT = "Xmp.iptc.AltTextAccessibility"
LONG_DESCRIPTION = "Xmp.iptc.ExtDescrAccessibility"
DESCRIPTION = "Xmp.dc.description"
EXIF_DESCRIPTION = "Exif.Image.ImageDescription"
IIM_CAPTION = "Iptc.Application2.Caption"
DEFAULT_LANGUAGE = "x-default"
_HEIF_ALT = "HEIF altt"
MAX_BYTES = 1_000_000_000

_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw"
    " .rw2 .rwl .sr2 .srf .srw .x3f".split()
)
_CAMERA_DEFAULT = re.compile(
    r"""\s*(
        (olympus|konica.?minolta|minolta|nikon|pentax|fujifilm|kodak|casio|ricoh)?\s*
            digital\s+(still\s+)?camera
      | sony\ dsc | minolta\ dsc | kenox\b.* | <.*samsung.*> | exif_jpeg_picture | dcf\ 1\.0
      | default | untitled | image | picture | photo | screenshot | camera | jpeg
      | my\ beautiful\ picture
      | (cof|sdr|hdr|vhdr|rbt|oznor|mde|dav|ptr|smart|bty|edf|cuk|lmt|fbt|btf)(_\w*)?
      | (created|edited|made|processed|generated|taken)\ (with|by|on)\b.*
      | [\w\\/:.-]*\b(dsc|dscf|dscn|img|imgp|pict|p|mvi|dji|gopr|pxl|sam|wp|cimg|hpim)[_-]?\d{3,}.*
      | [\w\\/:-]+\.(jpe?g|png|tiff?|gif|webp|avif|heic|bmp)
    )\s*""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class ImageText:
    """What an image file says about itself.

    Attributes:
        alt: the text of `AltTextAccessibility` (IPTC Photo Metadata 2021.1), or HEIF's own
            alternative text; None if there is none.
        long_description: `ExtDescrAccessibility`.
        description: `dc:description`, or Exif's ImageDescription, or IIM's Caption-Abstract.
            Texts that cameras and programs write by default are left out.
        alt_source: the field that `alt` is from; "" if there is none.
        description_source: the field that `description` is from.
    """

    alt: str | None = None
    long_description: str | None = None
    description: str | None = None
    alt_source: str = ""
    description_source: str = ""


def read_text(path: str | Path, language: str | None = None) -> ImageText:
    """Read the alt text and the descriptions of an image file and of its XMP sidecar.

    A sidecar's fields take precedence over those in the image.

    Args:
        path: the image file.
        language: the preferred language, such as "de"; None prefers `x-default`.

    Raises:
        ImageNotFoundError: there is no such file.
        MetadataError: the metadata cannot be read.
        MissingExtraError: exiv2 is not installed.
    """
    path = Path(path)
    data = read_file(path)
    fields = _fields(path, data)
    alt, alt_source = _first(fields, (ALT,), language)
    if alt is None and container.kind(data) == "HEIF":
        alt = container.heif_alt_text(data)
        alt_source = _HEIF_ALT if alt else ""
    description, source = _first(fields, (DESCRIPTION, EXIF_DESCRIPTION, IIM_CAPTION), language)
    return ImageText(
        alt=alt,
        long_description=_first(fields, (LONG_DESCRIPTION,), language)[0],
        description=description,
        alt_source=alt_source,
        description_source=source,
    )


def read_accessible_text(path: Path, language: str = DEFAULT_LANGUAGE) -> ImageText:
    """The alt text and the long description of an image file, or of its sidecar, in one language.

    Args:
        path: the image file.
        language: a language tag, or `x-default`, in which HEIF's own alternative text counts too.

    Returns:
        The two texts in exactly this language, and no description.

    Raises:
        ImageNotFoundError, MetadataError, MissingExtraError: as `read_text`.
    """
    data = read_file(path)
    fields = _fields(path, data)

    def text(key: str) -> str:
        texts = fields.get(key)
        found = str(texts.get(language) or "") if isinstance(texts, dict) else ""
        return " ".join(found.replace("\0", " ").split())

    alt, source = text(ALT), ALT
    if not alt and language == DEFAULT_LANGUAGE and container.kind(data) == "HEIF":
        alt, source = " ".join((container.heif_alt_text(data) or "").split()), _HEIF_ALT
    if not alt or is_camera_default(alt):
        alt = source = ""
    return ImageText(alt or None, text(LONG_DESCRIPTION) or None, alt_source=source)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        ImageNotFoundError: there is no such file.
        MetadataError: it is no regular file, too large, or cannot be read.
    """
    try:
        if not path.is_file():
            if path.exists():
                raise MetadataError(str(path), "not a regular file")
            raise ImageNotFoundError(str(path), "no such file")
        if path.stat().st_size > MAX_BYTES:
            raise MetadataError(str(path), f"larger than {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, MetadataError | ImageNotFoundError):
            raise
        raise MetadataError(str(path), f"cannot be read: {error}") from error


def has_fields(data: bytes) -> bool:
    """Whether exiv2 can read metadata in a file with these bytes."""
    return container.kind(data) not in (None, "BigTIFF")


def new_sidecar(path: Path) -> Path:
    """The name of a new sidecar: IMG.jpg.xmp, as darktable and digiKam name it."""
    return path.with_name(path.name + ".xmp")


def is_raw(path: Path) -> bool:
    """Whether a file has the name of a camera's raw file."""
    return path.suffix.lower() in _RAW


def find_sidecar(path: Path) -> Path | None:
    """The existing sidecar: IMG.jpg.xmp, or IMG.xmp unless that is the one of another raw file."""
    own = new_sidecar(path)
    if own.is_file():
        return own
    shared = path.with_suffix(".xmp")
    if shared.is_file() and not _has_raw_sibling(path):
        return shared
    return None


def is_camera_default(text: str) -> bool:
    """Whether a description is one that cameras and programs write by themselves."""
    return _CAMERA_DEFAULT.fullmatch(text) is not None


def _has_raw_sibling(path: Path) -> bool:
    try:
        return any(
            is_raw(each) and each.stem == path.stem and each.name != path.name
            for each in path.parent.iterdir()
        )
    except OSError:
        return False


def _fields(path: Path, data: bytes) -> dict[str, Any]:
    """The fields of an image and of its sidecar, whose fields take precedence."""
    fields = _by_key(read_fields(path)) if has_fields(data) else {}
    sidecar = find_sidecar(path)
    return fields if sidecar is None else fields | _by_key(read_fields(sidecar))


def _by_key(fields: list[Field]) -> dict[str, Any]:
    return {key: value for key, _, value in fields}


def _first(
    fields: dict[str, Any], keys: tuple[str, ...], language: str | None
) -> tuple[str | None, str]:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, dict):
            value = _in_language(value, language)
        text = " ".join(str(value or "").replace("\0", " ").split())
        text = re.sub(r"^charset=\w+ ", "", text)
        if text and not is_camera_default(text):
            return text, key
    return None, ""


def _in_language(texts: dict[str, str], language: str | None) -> str | None:
    """The text in a language, or in its base language, or the default, or the first."""
    by_tag = {tag.lower(): text for tag, text in texts.items()}
    wanted = (language or DEFAULT_LANGUAGE).lower()
    for tag in (wanted, wanted.partition("-")[0], DEFAULT_LANGUAGE):
        if by_tag.get(tag, "").strip():
            return by_tag[tag]
    return next((text for text in texts.values() if text.strip()), None)
