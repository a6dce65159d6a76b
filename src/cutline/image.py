"""Image decoding: a path, bytes, a Pillow image or an array becomes upright RGB, or one error.

- Decoders are chosen by a file's first bytes (`media_type`), never by its extension;
  `PIL.Image.open` is not used. So no decoder outside the list below is reachable, and Pillow's
  own limit on pixels, a process-wide switch that cannot be set per thread, is not involved: the
  limits here are checked on the header, before any pixel is decoded.
- A file whose decoder fails is tried once more without its metadata (`image_repair`), as browsers
  ignore damaged metadata too.
- Pillow's `UserWarning`s about TIFF tags and PNG animation chunks are ignored once, on import;
  changing filters around each call would race, since threads decode images. Other warnings are
  not touched. Pillow's log records reach the application's handlers, but not a bare terminal.
- Whatever a decoder raises becomes one `ImageError` that names the image.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import math
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from PIL import ExifTags, Image

from cutline.discover import is_url
from cutline.errors import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    OptionError,
)
from cutline.image_repair import END_OF_IMAGE, Repaired, repair
from cutline.media_type import (
    HEAD_BYTES,
    HTML,
    PDF,
    RAW,
    SVG,
    TEXT,
    MediaType,
    identify,
    is_camera_raw,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True)
class NamedImage:
    """The content of an image file under a name of its own, such as a URL.

    Attributes:
        name: what messages and `Caption.source` say.
        content: the file's bytes, or the reason why there are none.
    """

    name: str
    content: bytes | ImageError = field(repr=False)


ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | NamedImage | Image.Image | np.ndarray"
"""Anything that holds an image: a path, the bytes of a file, a Pillow image, an array."""
_READERS = {
    "JPEG": "JpegImagePlugin.JpegImageFile",
    "PNG": "PngImagePlugin.PngImageFile",
    "WebP": "WebPImagePlugin.WebPImageFile",
    "GIF": "GifImagePlugin.GifImageFile",
    "BMP": "BmpImagePlugin.BmpImageFile",
    "TIFF": "TiffImagePlugin.TiffImageFile",
    "AVIF": "AvifImagePlugin.AvifImageFile",
}
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.(Tiff|Png)ImagePlugin$")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_BAND_PIXELS = 1_000_000
_MAX_REPAIR_BYTES = 200_000_000
_MAX_MISSING = 0.25
_NOISE = bytes(i * 89 % 251 for i in range(4096))  # without 0xFF, which would begin a marker


class _NotFiniteError(ValueError):
    """An image has no finite value."""


@dataclass(frozen=True)
class Limits:
    """Sizes above which an image is refused, known from its header."""

    max_pixels: int = 120_000_000
    """Decoded pixels: 12,000 x 9,000 passes. Each takes four bytes, and up to ten while 16-bit,
    32-bit, float or transparent pixels are converted. A JPEG counts as it is decoded, reduced; a
    progressive one counts in full, since its decoder holds all coefficients."""

    max_jpeg_pixels: int = 1_000_000_000
    """Pixels in a JPEG's header, however far it is reduced: this bounds the time, some seconds."""

    max_bytes: int = 1_000_000_000
    """Bytes in a file: some decoders hold all of it."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: mode RGB, upright.
        note: what is missing, for a person; "" for an undamaged image.
    """

    image: Image.Image
    note: str = ""


_DEFAULT_LIMITS = Limits()


def describe(source: object) -> str:
    """Name a source for a person: its path, or its kind and size."""
    if isinstance(source, NamedImage):
        return source.name
    if isinstance(source, bytes):
        return f"<bytes: {len(source)} B>"
    if isinstance(source, np.ndarray):
        return f"<array {'x'.join(map(str, source.shape))}>"
    if isinstance(source, Image.Image):
        return f"<image {source.width}x{source.height}>"
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    return f"<{type(source).__name__}>"


def load_image(
    source: ImageSource, *, around_px: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> Image.Image:
    """Read one image as upright 8-bit RGB, its first frame, transparency over white.

    Files may be JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, or HEIC with the extra `cutline[heic]`.
    Damaged metadata is ignored; it may cost the EXIF orientation. 16-bit values keep their high
    byte; 32-bit and float files without a declared range are stretched between their darkest and
    brightest finite value.

    Args:
        source: a path, the bytes of a file, a Pillow image (its current frame), or an array
            HxW, HxWx1, HxWx3 or HxWx4 (RGB, alpha last) of uint8, uint16, bool, or float in 0..1.
        around_px: the side that is needed. A much larger JPEG is decoded at 1/2, 1/4 or 1/8, with
            neither side below it. None decodes in full, unless only a reduction fits the limits.
        limits: sizes above which the image is refused.

    Returns:
        Mode RGB. A Pillow image that already is upright RGB comes back as the same object.

    Raises:
        ImageError: the subclass that says what is wrong.
        OptionError: `around_px` is less than 1.
    """
    return decode_image(source, around_px=around_px, limits=limits).image


def decode_image(
    source: ImageSource, *, around_px: int | None = None, limits: Limits = _DEFAULT_LIMITS
) -> DecodedImage:
    """Read one image as `load_image` does, and say if a part of it is missing.

    Raises:
        ImageError, OptionError: as for `load_image`.
    """
    if around_px is not None and around_px < 1:
        raise OptionError(f"got around_px={around_px}; expected at least 1 pixel")
    name = describe(source)
    if isinstance(source, NamedImage):
        if isinstance(source.content, ImageError):
            raise source.content
        source = source.content
    if isinstance(source, bytes):
        return _decode_file(BytesIO(source), len(source), name, around_px, limits)
    if isinstance(source, np.ndarray):
        _check_pixels(source.shape[:2], limits.max_pixels, name)
        with _image_errors(name, "array"):
            return DecodedImage(_to_rgb(_from_array(source, name)))
    if isinstance(source, Image.Image):
        if min(source.size) < 1:
            raise ImageFormatError(name, "got an image without pixels; expected at least 1 x 1")
        _check_pixels(source.size, limits.max_pixels, name)
        with _image_errors(name, "image"):
            source.load()
            return DecodedImage(_upright(_to_rgb(source), _orientation(source)))
    if isinstance(source, str | os.PathLike):
        with open_file(name) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            return _decode_file(file, size_bytes, name, around_px, limits)
    raise ImageFormatError(
        name,
        f"got {type(source).__name__}; expected a path, bytes, a Pillow image or a NumPy array",
    )


def open_file(name: str) -> BinaryIO:
    """Open a regular file, and only that: opening a named pipe would wait for its writer.

    Raises:
        ImageError: there is no such file, or it cannot be opened.
    """
    if not name:
        raise ImageNotFoundError(name, "the path is empty")
    try:
        kind = Path(name).stat().st_mode
        if stat.S_ISDIR(kind) and not os.access(name, os.R_OK):
            raise ImageUnreadableError(name, "the system refuses to open this folder")
        if stat.S_ISDIR(kind):
            raise ImageFormatError(name, "is a folder; expected an image")
        if not stat.S_ISREG(kind):
            raise ImageFormatError(name, "is a pipe, socket or device; expected a regular file")
        return Path(name).open("rb")
    except ImageError:
        raise
    except ValueError as error:
        raise ImageNotFoundError(name, "no file can have this name") from error
    except PermissionError as error:
        raise ImageUnreadableError(name, "the system refuses to open it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageNotFoundError(name, "a link that leads in a circle") from error
        if error.errno == errno.ENAMETOOLONG and not is_url(name):
            raise ImageNotFoundError(name, "no such file: the name is too long") from error
        if isinstance(error, FileNotFoundError | NotADirectoryError) or is_url(name):
            reason = "no such file"
            if is_url(name):
                reason = "is a URL; expected a file: download it first"
            elif Path(name).is_symlink():
                reason = "a broken link"
            raise ImageNotFoundError(name, reason) from error
        raise ImageUnreadableError(name, f"cannot be opened: {error.strerror}") from error


def _decode_file(
    file: BinaryIO, size_bytes: int, name: str, around_px: int | None, limits: Limits
) -> DecodedImage:
    if size_bytes == 0:
        raise ImageCorruptError(name, "the file is empty")
    if size_bytes > limits.max_bytes:
        raise ImageTooLargeError(
            name, f"got {size_bytes:,} bytes; expected at most {limits.max_bytes:,}"
        )
    with _image_errors(name, "file"):
        head = file.read(HEAD_BYTES)
        kind = identify(head)
        if kind is not None and kind.name == "TIFF" and is_camera_raw(file):
            kind = RAW
        file.seek(0)
    if kind is None or kind.name not in (*_READERS, "HEIC"):
        raise ImageFormatError(name, _unsupported(kind))
    try:
        return DecodedImage(_decode(file, kind.name, name, around_px, limits))
    except (ImageCorruptError, ImageFormatError):
        if size_bytes > _MAX_REPAIR_BYTES:
            raise
        with _image_errors(name, kind.name):
            file.seek(0)
            repaired = repair(kind.name, file.read())
        if repaired is not None:
            decoded = _decode_repaired(repaired, kind.name, name, around_px, limits)
            if decoded is not None:
                return decoded
            if repaired.cut_short:
                raise ImageCorruptError(name, f"this {kind.name} is cut short") from None
        raise


def _decode(
    file: BinaryIO,
    kind: str,
    name: str,
    around_px: int | None,
    limits: Limits,
    orientation: int | None = None,
) -> Image.Image:
    """Decode a file with the decoder for its format."""
    max_pixels = limits.max_pixels
    if kind in ("GIF", "TIFF") and Image.MAX_IMAGE_PIXELS:
        # These two decoders apply Pillow's own limit, and warn, while they decode.
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS)
    with _image_errors(name, kind):
        if kind == "GIF":
            _check_pixels(_gif_extent(file), max_pixels, name)
        with _reader(kind, name)(file) as image:
            if kind == "JPEG":
                _reduce(image, around_px, limits, name)
            _check_pixels(image.size, max_pixels, name)
            image.load()
            if orientation is None:
                orientation = _orientation(image)
            rgb = _to_rgb(image)
        return _upright(rgb, orientation)


def _decode_repaired(
    repaired: Repaired, kind: str, name: str, around_px: int | None, limits: Limits
) -> DecodedImage | None:
    """Decode a file without its metadata; None if that fails too or too much of it is missing."""

    def decode(content: bytes, side_px: int | None = around_px) -> Image.Image:
        return _decode(BytesIO(content), kind, name, side_px, limits, orientation=1)

    try:
        image = decode(repaired.content)
    except (ImageCorruptError, ImageFormatError):
        if kind != "JPEG" or around_px is None:
            return None
        try:  # a lossless JPEG has no reduced size
            image = decode(repaired.content, None)
        except (ImageCorruptError, ImageFormatError):
            return None
    note = ""
    if repaired.missing > _MAX_MISSING:
        return None
    if repaired.missing:
        part = "" if kind == "BMP" else "the last "  # its rows may be stored from the bottom up
        note = f"the file is cut short; {part}{repaired.missing:.0%} of the image are missing"
    elif repaired.cut_short and kind == "JPEG":
        other = decode(repaired.content.removesuffix(END_OF_IMAGE) + _NOISE + END_OF_IMAGE)
        missing = _missing_share(image, other)
        if repaired.coarse_scans and (missing or not repaired.all_scans):
            note = "the file is cut short; only a coarse image could be read"
        elif not repaired.all_scans or missing > _MAX_MISSING:
            return None
        elif missing:
            note = f"the file is cut short; the last {missing:.0%} of the image are missing"
    return DecodedImage(_upright(image, _exif_orientation(repaired.exif)), note)


def _missing_share(image: Image.Image, continued: Image.Image) -> float:
    """How much of a baseline JPEG's height is missing, 0 to 1.

    Where the data of the last scan is complete, the decoder skips what follows it. Otherwise it
    takes what follows for the missing part, and that part of the image changes.

    Args:
        image: decoded from a file that is cut short.
        continued: decoded from the same file with noise behind it.
    """
    changed = (np.asarray(image) != np.asarray(continued)).any(axis=(1, 2))
    return 1 - int(changed.argmax()) / image.height if changed.any() else 0.0


def _unsupported(kind: MediaType | None) -> str:
    """Say what the file is instead of an image that can be read."""
    what = "its first bytes are of no known image format" if kind is None else f"it is {kind.what}"
    advice = {
        HTML: "save the image itself, not its page",
        TEXT: "name an image instead",
        RAW: "export it from your photo software",
        SVG: "convert it to one of them",
        PDF: "convert its page to one of them",
    }
    to_do = "convert it, if it is one" if kind is None else advice.get(kind, "convert it first")
    *formats, last = [*_READERS, *(["HEIC"] if importlib.util.find_spec("pillow_heif") else [])]
    return f"{what}; expected an image: {', '.join(formats)} or {last}; {to_do}"


def _reader(kind: str, name: str) -> type[ImageFile]:
    if kind == "HEIC":
        try:
            heif: type[ImageFile] = importlib.import_module("pillow_heif").HeifImageFile
        except ImportError as error:
            raise ImageFormatError(
                name, 'a HEIC image needs an extra: pip install "cutline[heic]"'
            ) from error
        return heif
    module, _, reader = _READERS[kind].partition(".")
    found: type[ImageFile] = getattr(importlib.import_module(f"PIL.{module}"), reader)
    return found


def _gif_extent(file: BinaryIO) -> tuple[int, int]:
    """Where a GIF's first frame ends, which may lie beyond the screen that its header declares."""
    screen = file.read(13)
    if screen[10] & 0x80:
        file.seek(3 << ((screen[10] & 7) + 1), os.SEEK_CUR)
    while (mark := file.read(1)) != b",":
        if mark in (b"", b";"):
            raise EOFError("no frame")
        if mark == b"!":
            file.seek(1, os.SEEK_CUR)
            while size := file.read(1)[0]:
                file.seek(size, os.SEEK_CUR)
    left, top, width, height = struct.unpack("<4H", file.read(8))
    file.seek(0)
    return left + width, top + height


def _reduce(image: ImageFile, around_px: int | None, limits: Limits, name: str) -> None:
    """Ask the JPEG decoder for 1/2, 1/4 or 1/8 of the size; refuse what is too large even so."""
    width, height = image.size
    if image.info.get("progressive"):
        _check_pixels(image.size, limits.max_pixels, name, "a progressive JPEG of ")
    _check_pixels(image.size, limits.max_jpeg_pixels, name)
    if around_px is not None:
        image.draft(None, (around_px, around_px))
    elif width * height > limits.max_pixels:
        by = next((by for by in (2, 4) if width * height <= by * by * limits.max_pixels), 8)
        image.draft(None, (max(1, width // by), max(1, height // by)))


def _check_pixels(size: tuple[int, ...], most: int, name: str, what: str = "") -> None:
    if len(size) == 2 and size[0] * size[1] > most:
        raise ImageTooLargeError(
            name,
            f"got {what}{size[0]:,} x {size[1]:,} pixels; expected at most {most:,} in all;"
            " make it smaller",
        )


def _bands(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows, each of about a million pixels, so that copies of them stay small."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        over_white = Image.new("RGB", image.size, "white")
        for box in _bands(*image.size):
            band = image.crop(box).convert("RGBA")
            over_white.paste(band, box, mask=band)
        return over_white
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float values to mode L."""
    grey = Image.new("L", image.size)
    low, high = 0.0, 65535.0
    bits_16 = image.mode.startswith("I;16")
    if not bits_16:
        low, high = _value_range(image)
    for box in _bands(*image.size):
        values = np.asarray(image.crop(box))
        if bits_16:
            levels = (values >> 8).astype(np.uint8)
        else:
            scaled = values.astype(np.float32)
            scaled -= np.float32(low)
            scaled *= np.float32(255 / ((high - low) or 1))
            levels = np.nan_to_num(np.clip(np.rint(scaled), 0, 255)).astype(np.uint8)
        grey.paste(Image.fromarray(levels), box)
    return grey


def _value_range(image: Image.Image) -> tuple[float, float]:
    """The values that become black and white: a usual full scale, else the extremes."""
    lowest, highest = math.inf, -math.inf
    integers = image.mode != "F"
    for box in _bands(*image.size):
        values = np.asarray(image.crop(box))
        finite = values if integers else values[np.isfinite(values)]
        if finite.size:
            lowest = min(lowest, float(finite.min()))
            highest = max(highest, float(finite.max()))
    if not math.isfinite(highest - lowest):
        raise _NotFiniteError("its values are not finite numbers; expected some that are")
    if lowest >= 0:
        for full_scale in (255, 65535) if integers else (1,):
            if highest <= full_scale:
                return 0.0, float(full_scale)
    return lowest, highest


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the metadata is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata costs the orientation, not the image
        return 1


def _exif_orientation(exif: bytes) -> int:
    try:
        parsed = Image.Exif()
        parsed.load(exif)
        return int(parsed.get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _from_array(array: NDArray[np.generic], name: str) -> Image.Image:
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        hint = "; move the channels last: array.transpose(1, 2, 0)"
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageFormatError(
            name,
            f"got an array of shape {array.shape}; expected HxW, HxWx1, HxWx3 or HxWx4"
            + (hint if first else ""),
        )
    if array.size == 0:
        raise ImageFormatError(name, f"got an empty array of shape {array.shape}; expected pixels")
    if array.dtype == np.bool_:
        levels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        levels = array.astype(np.uint8, copy=False)
    elif array.dtype == np.uint16:
        levels = (array.astype(np.uint16, copy=False) >> 8).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise ImageFormatError(
                name,
                f"got floats from {low:g} to {high:g}; expected 0 to 1; divide by their largest",
            )
        levels = np.empty(array.shape, np.uint8)
        for _, top, _, bottom in _bands(array.shape[1], array.shape[0]):
            rows = array[top:bottom].astype(np.float32)
            rows *= 255
            levels[top:bottom] = np.rint(rows, out=rows)
    else:
        raise ImageFormatError(
            name,
            f"got an array of {array.dtype}; expected uint8, uint16, bool, or float in 0..1;"
            " if its values are 0 to 255: array.astype(numpy.uint8)",
        )
    if levels.ndim == 3 and channels == 1:
        levels = levels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(levels))


@contextmanager
def _image_errors(name: str, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into the one error that says what is wrong."""
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"this {kind} needs more memory than it may have; make it smaller"
        raise ImageTooLargeError(name, reason) from error
    except OSError as error:
        if error.errno is None:
            raise _image_error(name, kind, error) from error
        raise ImageUnreadableError(name, f"cannot be read: {error.strerror}") from error
    except Exception as error:
        raise _image_error(name, kind, error) from error


def _image_error(name: str, kind: str, error: Exception) -> ImageError:
    detail = str(error)
    if isinstance(error, _NotFiniteError):
        return ImageCorruptError(name, detail)
    if re.search(
        r"unsupported|not supported|not installed|not available|unknown (pixel|data)", detail, re.I
    ):
        return ImageFormatError(name, f"a variant of {kind} without a decoder here ({detail})")
    if kind == "TIFF" and detail.isdigit():  # a compression that Pillow does not know
        return ImageFormatError(name, f"a variant of TIFF without a decoder here ({detail})")
    if kind == "TIFF" and "decoder error" in detail:  # all that libtiff's decoders say
        return ImageCorruptError(name, "this TIFF is damaged, or a variant without a decoder here")
    cut = re.search(r"truncated|end of|eof|not enough", detail, re.I)
    if cut or isinstance(error, EOFError | IndexError | struct.error):
        return ImageCorruptError(name, f"this {kind} is cut short")
    if isinstance(error, KeyError) or not detail:
        detail = f"{type(error).__name__} {detail}".strip()
    return ImageCorruptError(name, f"this {kind} is damaged ({detail})")
